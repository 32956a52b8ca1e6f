//! The messages of the `kafka-protocol` crate, field by field into ours.
//!
//! The names on both sides are those of Kafka's schemas, so that a field which is read in the
//! wrong place shows as a difference even if both sides write the same bytes.

use bytes::Bytes;
use fulmar_types::Uuid;
use fulmar_wire as ours;
use fulmar_wire::{ErrorCode, Records};
use kafka_protocol::messages as kp;
use kafka_protocol::protocol::StrBytes;

/// A value of theirs as the same value of ours.
pub trait Theirs<Ours> {
    fn ours(self) -> Ours;
}

macro_rules! same {
    ($($type:ty),*) => {$(
        impl Theirs<$type> for $type {
            fn ours(self) -> $type {
                self
            }
        }
    )*};
}

same!(i8, i16, i32, i64, bool, Bytes);

macro_rules! leaf {
    ($($theirs:ty => $ours:ty: $convert:expr;)*) => {$(
        impl Theirs<$ours> for $theirs {
            fn ours(self) -> $ours {
                ($convert)(self)
            }
        }
    )*};
}

leaf! {
    StrBytes => String: |text: StrBytes| text.to_string();
    kp::TopicName => String: |name: kp::TopicName| name.0.to_string();
    kp::TransactionalId => String: |id: kp::TransactionalId| id.0.to_string();
    kp::BrokerId => i32: |id: kp::BrokerId| id.0;
    kp::ProducerId => i64: |id: kp::ProducerId| id.0;
    i16 => ErrorCode: ErrorCode::from_code;
    uuid::Uuid => Uuid: |id: uuid::Uuid| Uuid(id.into_bytes());
    Bytes => Records: Records::from;
}

impl<O, T: Theirs<O>> Theirs<Vec<O>> for Vec<T> {
    fn ours(self) -> Vec<O> {
        self.into_iter().map(Theirs::ours).collect()
    }
}

impl<O, T: Theirs<O>> Theirs<Option<O>> for Option<T> {
    fn ours(self) -> Option<O> {
        self.map(Theirs::ours)
    }
}

macro_rules! structs {
    ($($module:ident: $theirs:ident => $ours:ident { $($field:ident),* $(,)? })*) => {$(
        impl Theirs<ours::$ours> for kp::$module::$theirs {
            fn ours(self) -> ours::$ours {
                ours::$ours { $($field: self.$field.ours(),)* }
            }
        }
    )*};
}

structs! {
    produce_request: ProduceRequest => ProduceRequest {
        transactional_id, acks, timeout_ms, topic_data,
    }
    produce_request: TopicProduceData => TopicProduceData { name, partition_data }
    produce_request: PartitionProduceData => PartitionProduceData { index, records }
    produce_response: ProduceResponse => ProduceResponse { responses, throttle_time_ms }
    produce_response: TopicProduceResponse => TopicProduceResponse { name, partition_responses }
    produce_response: PartitionProduceResponse => PartitionProduceResponse {
        index, error_code, base_offset, log_append_time_ms, log_start_offset, record_errors,
        error_message,
    }
    produce_response: BatchIndexAndErrorMessage => BatchIndexAndErrorMessage {
        batch_index, batch_index_error_message,
    }
    fetch_request: FetchRequest => FetchRequest {
        cluster_id, replica_id, max_wait_ms, min_bytes, max_bytes, isolation_level, session_id,
        session_epoch, topics, forgotten_topics_data, rack_id,
    }
    fetch_request: FetchTopic => FetchTopic { topic, partitions }
    fetch_request: FetchPartition => FetchPartition {
        partition, current_leader_epoch, fetch_offset, last_fetched_epoch, log_start_offset,
        partition_max_bytes,
    }
    fetch_request: ForgottenTopic => ForgottenTopic { topic, partitions }
    fetch_response: FetchResponse => FetchResponse {
        throttle_time_ms, error_code, session_id, responses,
    }
    fetch_response: FetchableTopicResponse => FetchableTopicResponse { topic, partitions }
    fetch_response: PartitionData => FetchPartitionData {
        partition_index, error_code, high_watermark, last_stable_offset, log_start_offset,
        diverging_epoch, current_leader, snapshot_id, aborted_transactions,
        preferred_read_replica, records,
    }
    fetch_response: EpochEndOffset => EpochEndOffset { epoch, end_offset }
    fetch_response: LeaderIdAndEpoch => LeaderIdAndEpoch { leader_id, leader_epoch }
    fetch_response: SnapshotId => SnapshotId { end_offset, epoch }
    fetch_response: AbortedTransaction => AbortedTransaction { producer_id, first_offset }
    list_offsets_request: ListOffsetsRequest => ListOffsetsRequest {
        replica_id, isolation_level, topics,
    }
    list_offsets_request: ListOffsetsTopic => ListOffsetsTopic { name, partitions }
    list_offsets_request: ListOffsetsPartition => ListOffsetsPartition {
        partition_index, current_leader_epoch, timestamp,
    }
    list_offsets_response: ListOffsetsResponse => ListOffsetsResponse { throttle_time_ms, topics }
    list_offsets_response: ListOffsetsTopicResponse => ListOffsetsTopicResponse {
        name, partitions,
    }
    list_offsets_response: ListOffsetsPartitionResponse => ListOffsetsPartitionResponse {
        partition_index, error_code, timestamp, offset, leader_epoch,
    }
    metadata_request: MetadataRequest => MetadataRequest {
        topics, allow_auto_topic_creation, include_cluster_authorized_operations,
        include_topic_authorized_operations,
    }
    metadata_request: MetadataRequestTopic => MetadataRequestTopic { topic_id, name }
    metadata_response: MetadataResponse => MetadataResponse {
        throttle_time_ms, brokers, cluster_id, controller_id, topics,
        cluster_authorized_operations,
    }
    metadata_response: MetadataResponseBroker => MetadataResponseBroker {
        node_id, host, port, rack,
    }
    metadata_response: MetadataResponseTopic => MetadataResponseTopic {
        error_code, name, topic_id, is_internal, partitions, topic_authorized_operations,
    }
    metadata_response: MetadataResponsePartition => MetadataResponsePartition {
        error_code, partition_index, leader_id, leader_epoch, replica_nodes, isr_nodes,
        offline_replicas,
    }
    api_versions_request: ApiVersionsRequest => ApiVersionsRequest {
        client_software_name, client_software_version,
    }
    api_versions_response: ApiVersionsResponse => ApiVersionsResponse {
        error_code, api_keys, throttle_time_ms,
    }
    api_versions_response: ApiVersion => ApiVersion { api_key, min_version, max_version }
    create_topics_request: CreateTopicsRequest => CreateTopicsRequest {
        topics, timeout_ms, validate_only,
    }
    create_topics_request: CreatableTopic => CreatableTopic {
        name, num_partitions, replication_factor, assignments, configs,
    }
    create_topics_request: CreatableReplicaAssignment => CreatableReplicaAssignment {
        partition_index, broker_ids,
    }
    create_topics_request: CreatableTopicConfig => CreatableTopicConfig { name, value }
    create_topics_response: CreateTopicsResponse => CreateTopicsResponse {
        throttle_time_ms, topics,
    }
    create_topics_response: CreatableTopicResult => CreatableTopicResult {
        name, topic_id, error_code, error_message, topic_config_error_code, num_partitions,
        replication_factor, configs,
    }
    create_topics_response: CreatableTopicConfigs => CreatableTopicConfigs {
        name, value, read_only, config_source, is_sensitive,
    }
    delete_topics_request: DeleteTopicsRequest => DeleteTopicsRequest {
        topics, topic_names, timeout_ms,
    }
    delete_topics_request: DeleteTopicState => DeleteTopicState { name, topic_id }
    delete_topics_response: DeleteTopicsResponse => DeleteTopicsResponse {
        throttle_time_ms, responses,
    }
    delete_topics_response: DeletableTopicResult => DeletableTopicResult {
        name, topic_id, error_code, error_message,
    }
    init_producer_id_request: InitProducerIdRequest => InitProducerIdRequest {
        transactional_id, transaction_timeout_ms, producer_id, producer_epoch,
    }
    init_producer_id_response: InitProducerIdResponse => InitProducerIdResponse {
        throttle_time_ms, error_code, producer_id, producer_epoch,
    }
    describe_configs_request: DescribeConfigsRequest => DescribeConfigsRequest {
        resources, include_synonyms, include_documentation,
    }
    describe_configs_request: DescribeConfigsResource => DescribeConfigsResource {
        resource_type, resource_name, configuration_keys,
    }
    describe_configs_response: DescribeConfigsResponse => DescribeConfigsResponse {
        throttle_time_ms, results,
    }
    describe_configs_response: DescribeConfigsResult => DescribeConfigsResult {
        error_code, error_message, resource_type, resource_name, configs,
    }
    describe_configs_response: DescribeConfigsResourceResult => DescribeConfigsResourceResult {
        name, value, read_only, config_source, is_sensitive, synonyms, config_type, documentation,
    }
    describe_configs_response: DescribeConfigsSynonym => DescribeConfigsSynonym {
        name, value, source,
    }
    alter_configs_request: AlterConfigsRequest => AlterConfigsRequest { resources, validate_only }
    alter_configs_request: AlterConfigsResource => AlterConfigsResource {
        resource_type, resource_name, configs,
    }
    alter_configs_request: AlterableConfig => AlterableConfig { name, value }
    alter_configs_response: AlterConfigsResponse => AlterConfigsResponse {
        throttle_time_ms, responses,
    }
    alter_configs_response: AlterConfigsResourceResponse => AlterConfigsResourceResponse {
        error_code, error_message, resource_type, resource_name,
    }
    incremental_alter_configs_request:
        IncrementalAlterConfigsRequest => IncrementalAlterConfigsRequest {
        resources, validate_only,
    }
    incremental_alter_configs_request: AlterConfigsResource => IncrementalAlterConfigsResource {
        resource_type, resource_name, configs,
    }
    incremental_alter_configs_request: AlterableConfig => IncrementalAlterableConfig {
        name, config_operation, value,
    }
    incremental_alter_configs_response:
        IncrementalAlterConfigsResponse => IncrementalAlterConfigsResponse {
        throttle_time_ms, responses,
    }
    incremental_alter_configs_response:
        AlterConfigsResourceResponse => AlterConfigsResourceResponse {
        error_code, error_message, resource_type, resource_name,
    }
}
