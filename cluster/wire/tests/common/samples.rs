//! A random value of each message in a version.

use super::Gen;
use fulmar_wire::*;

/// Calls a macro with every message: its type and its sample function.
#[macro_export]
macro_rules! for_each_message {
    ($call:ident) => {
        $call! {
            ProduceRequest, produce_request;
            ProduceResponse, produce_response;
            FetchRequest, fetch_request;
            FetchResponse, fetch_response;
            ListOffsetsRequest, list_offsets_request;
            ListOffsetsResponse, list_offsets_response;
            MetadataRequest, metadata_request;
            MetadataResponse, metadata_response;
            ApiVersionsRequest, api_versions_request;
            ApiVersionsResponse, api_versions_response;
            CreateTopicsRequest, create_topics_request;
            CreateTopicsResponse, create_topics_response;
            DeleteTopicsRequest, delete_topics_request;
            DeleteTopicsResponse, delete_topics_response;
            InitProducerIdRequest, init_producer_id_request;
            InitProducerIdResponse, init_producer_id_response;
            DescribeConfigsRequest, describe_configs_request;
            DescribeConfigsResponse, describe_configs_response;
            AlterConfigsRequest, alter_configs_request;
            AlterConfigsResponse, alter_configs_response;
            IncrementalAlterConfigsRequest, incremental_alter_configs_request;
            IncrementalAlterConfigsResponse, incremental_alter_configs_response;
        }
    };
}

pub fn produce_request(g: &mut Gen, _: i16) -> ProduceRequest {
    ProduceRequest {
        transactional_id: g.option(Gen::text),
        acks: g.i16(),
        timeout_ms: g.i32(),
        topic_data: g.vec(|g| TopicProduceData {
            name: g.text(),
            partition_data: g
                .vec(|g| PartitionProduceData { index: g.i32(), records: g.option(Gen::records) }),
        }),
    }
}

pub fn produce_response(g: &mut Gen, v: i16) -> ProduceResponse {
    ProduceResponse {
        responses: g.vec(|g| TopicProduceResponse {
            name: g.text(),
            partition_responses: g.vec(|g| PartitionProduceResponse {
                index: g.i32(),
                error_code: g.error(),
                base_offset: g.i64(),
                log_append_time_ms: g.i64(),
                log_start_offset: if v >= 5 { g.i64() } else { -1 },
                record_errors: if v >= 8 { g.vec(record_error) } else { vec![] },
                error_message: if v >= 8 { g.option(Gen::text) } else { None },
            }),
        }),
        throttle_time_ms: g.i32(),
    }
}

fn record_error(g: &mut Gen) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage {
        batch_index: g.i32(),
        batch_index_error_message: g.option(Gen::text),
    }
}

pub fn fetch_request(g: &mut Gen, v: i16) -> FetchRequest {
    FetchRequest {
        cluster_id: if v >= 12 { g.option(Gen::text) } else { None },
        replica_id: g.i32(),
        max_wait_ms: g.i32(),
        min_bytes: g.i32(),
        max_bytes: g.i32(),
        isolation_level: g.i8(),
        session_id: if v >= 7 { g.i32() } else { 0 },
        session_epoch: if v >= 7 { g.i32() } else { -1 },
        topics: g.vec(|g| FetchTopic {
            topic: g.text(),
            partitions: g.vec(|g| FetchPartition {
                partition: g.i32(),
                current_leader_epoch: if v >= 9 { g.i32() } else { -1 },
                fetch_offset: g.i64(),
                last_fetched_epoch: if v >= 12 { g.i32() } else { -1 },
                log_start_offset: if v >= 5 { g.i64() } else { -1 },
                partition_max_bytes: g.i32(),
            }),
        }),
        forgotten_topics_data: if v >= 7 { g.vec(forgotten_topic) } else { vec![] },
        rack_id: if v >= 11 { g.text() } else { String::new() },
    }
}

fn forgotten_topic(g: &mut Gen) -> ForgottenTopic {
    ForgottenTopic { topic: g.text(), partitions: g.vec(Gen::i32) }
}

pub fn fetch_response(g: &mut Gen, v: i16) -> FetchResponse {
    FetchResponse {
        throttle_time_ms: g.i32(),
        error_code: if v >= 7 { g.error() } else { ErrorCode::None },
        session_id: if v >= 7 { g.i32() } else { 0 },
        responses: g.vec(|g| FetchableTopicResponse {
            topic: g.text(),
            partitions: g.vec(|g| fetch_partition_data(g, v)),
        }),
    }
}

fn fetch_partition_data(g: &mut Gen, v: i16) -> FetchPartitionData {
    let mut data = FetchPartitionData {
        partition_index: g.i32(),
        error_code: g.error(),
        high_watermark: g.i64(),
        last_stable_offset: g.i64(),
        log_start_offset: if v >= 5 { g.i64() } else { -1 },
        aborted_transactions: g.option(|g| {
            g.vec(|g| AbortedTransaction { producer_id: g.i64(), first_offset: g.i64() })
        }),
        preferred_read_replica: if v >= 11 { g.i32() } else { -1 },
        records: g.option(|g| (0..g.below(3)).map(|_| g.records()).collect()),
        ..FetchPartitionData::default()
    };
    if v >= 12 && g.bool() {
        data.diverging_epoch = EpochEndOffset { epoch: g.i32(), end_offset: g.i64() };
    }
    if v >= 12 && g.bool() {
        data.current_leader = LeaderIdAndEpoch { leader_id: g.i32(), leader_epoch: g.i32() };
    }
    if v >= 12 && g.bool() {
        data.snapshot_id = SnapshotId { end_offset: g.i64(), epoch: g.i32() };
    }
    data
}

pub fn list_offsets_request(g: &mut Gen, v: i16) -> ListOffsetsRequest {
    ListOffsetsRequest {
        replica_id: g.i32(),
        isolation_level: if v >= 2 { g.i8() } else { 0 },
        topics: g.vec(|g| ListOffsetsTopic {
            name: g.text(),
            partitions: g.vec(|g| ListOffsetsPartition {
                partition_index: g.i32(),
                current_leader_epoch: if v >= 4 { g.i32() } else { -1 },
                timestamp: g.i64(),
            }),
        }),
    }
}

pub fn list_offsets_response(g: &mut Gen, v: i16) -> ListOffsetsResponse {
    ListOffsetsResponse {
        throttle_time_ms: if v >= 2 { g.i32() } else { 0 },
        topics: g.vec(|g| ListOffsetsTopicResponse {
            name: g.text(),
            partitions: g.vec(|g| ListOffsetsPartitionResponse {
                partition_index: g.i32(),
                error_code: g.error(),
                timestamp: g.i64(),
                offset: g.i64(),
                leader_epoch: if v >= 4 { g.i32() } else { -1 },
            }),
        }),
    }
}

pub fn metadata_request(g: &mut Gen, v: i16) -> MetadataRequest {
    let topics = |g: &mut Gen| {
        g.vec(|g| MetadataRequestTopic {
            topic_id: if v >= 10 { g.uuid() } else { Default::default() },
            name: if v >= 10 { g.option(Gen::text) } else { Some(g.text()) },
        })
    };
    MetadataRequest {
        topics: if v >= 1 { g.option(topics) } else { Some(topics(g)) },
        allow_auto_topic_creation: if v >= 4 { g.bool() } else { true },
        include_cluster_authorized_operations: (8..=10).contains(&v) && g.bool(),
        include_topic_authorized_operations: v >= 8 && g.bool(),
    }
}

pub fn metadata_response(g: &mut Gen, v: i16) -> MetadataResponse {
    MetadataResponse {
        throttle_time_ms: if v >= 3 { g.i32() } else { 0 },
        brokers: g.vec(|g| MetadataResponseBroker {
            node_id: g.i32(),
            host: g.text(),
            port: g.i32(),
            rack: if v >= 1 { g.option(Gen::text) } else { None },
        }),
        cluster_id: if v >= 2 { g.option(Gen::text) } else { None },
        controller_id: if v >= 1 { g.i32() } else { -1 },
        topics: g.vec(|g| metadata_topic(g, v)),
        cluster_authorized_operations: if (8..=10).contains(&v) { g.i32() } else { i32::MIN },
    }
}

fn metadata_topic(g: &mut Gen, v: i16) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: g.error(),
        name: if v >= 12 { g.option(Gen::text) } else { Some(g.text()) },
        topic_id: if v >= 10 { g.uuid() } else { Default::default() },
        is_internal: v >= 1 && g.bool(),
        partitions: g.vec(|g| MetadataResponsePartition {
            error_code: g.error(),
            partition_index: g.i32(),
            leader_id: g.i32(),
            leader_epoch: if v >= 7 { g.i32() } else { -1 },
            replica_nodes: g.vec(Gen::i32),
            isr_nodes: g.vec(Gen::i32),
            offline_replicas: if v >= 5 { g.vec(Gen::i32) } else { vec![] },
        }),
        topic_authorized_operations: if v >= 8 { g.i32() } else { i32::MIN },
    }
}

pub fn api_versions_request(g: &mut Gen, v: i16) -> ApiVersionsRequest {
    if v < 3 {
        return ApiVersionsRequest::default();
    }
    ApiVersionsRequest { client_software_name: g.text(), client_software_version: g.text() }
}

pub fn api_versions_response(g: &mut Gen, v: i16) -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: g.error(),
        api_keys: g.vec(|g| ApiVersion {
            api_key: g.i16(),
            min_version: g.i16(),
            max_version: g.i16(),
        }),
        throttle_time_ms: if v >= 1 { g.i32() } else { 0 },
    }
}

pub fn create_topics_request(g: &mut Gen, _: i16) -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics: g.vec(|g| CreatableTopic {
            name: g.text(),
            num_partitions: g.i32(),
            replication_factor: g.i16(),
            assignments: g.vec(|g| CreatableReplicaAssignment {
                partition_index: g.i32(),
                broker_ids: g.vec(Gen::i32),
            }),
            configs: g.vec(|g| CreatableTopicConfig { name: g.text(), value: g.option(Gen::text) }),
        }),
        timeout_ms: g.i32(),
        validate_only: g.bool(),
    }
}

pub fn create_topics_response(g: &mut Gen, v: i16) -> CreateTopicsResponse {
    CreateTopicsResponse {
        throttle_time_ms: g.i32(),
        topics: g.vec(|g| CreatableTopicResult {
            name: g.text(),
            topic_id: if v >= 7 { g.uuid() } else { Default::default() },
            error_code: g.error(),
            error_message: g.option(Gen::text),
            topic_config_error_code: if v >= 5 { g.error() } else { ErrorCode::None },
            num_partitions: if v >= 5 { g.i32() } else { -1 },
            replication_factor: if v >= 5 { g.i16() } else { -1 },
            configs: if v >= 5 { g.option(|g| g.vec(topic_config)) } else { Some(vec![]) },
        }),
    }
}

fn topic_config(g: &mut Gen) -> CreatableTopicConfigs {
    CreatableTopicConfigs {
        name: g.text(),
        value: g.option(Gen::text),
        read_only: g.bool(),
        config_source: g.i8(),
        is_sensitive: g.bool(),
    }
}

pub fn delete_topics_request(g: &mut Gen, v: i16) -> DeleteTopicsRequest {
    DeleteTopicsRequest {
        topics: if v >= 6 {
            g.vec(|g| DeleteTopicState { name: g.option(Gen::text), topic_id: g.uuid() })
        } else {
            vec![]
        },
        topic_names: if v <= 5 { g.vec(Gen::text) } else { vec![] },
        timeout_ms: g.i32(),
    }
}

pub fn delete_topics_response(g: &mut Gen, v: i16) -> DeleteTopicsResponse {
    DeleteTopicsResponse {
        throttle_time_ms: g.i32(),
        responses: g.vec(|g| DeletableTopicResult {
            name: if v >= 6 { g.option(Gen::text) } else { Some(g.text()) },
            topic_id: if v >= 6 { g.uuid() } else { Default::default() },
            error_code: g.error(),
            error_message: if v >= 5 { g.option(Gen::text) } else { None },
        }),
    }
}

pub fn init_producer_id_request(g: &mut Gen, v: i16) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: g.option(Gen::text),
        transaction_timeout_ms: g.i32(),
        producer_id: if v >= 3 { g.i64() } else { -1 },
        producer_epoch: if v >= 3 { g.i16() } else { -1 },
    }
}

pub fn init_producer_id_response(g: &mut Gen, _: i16) -> InitProducerIdResponse {
    InitProducerIdResponse {
        throttle_time_ms: g.i32(),
        error_code: g.error(),
        producer_id: g.i64(),
        producer_epoch: g.i16(),
    }
}

pub fn describe_configs_request(g: &mut Gen, v: i16) -> DescribeConfigsRequest {
    DescribeConfigsRequest {
        resources: g.vec(|g| DescribeConfigsResource {
            resource_type: g.i8(),
            resource_name: g.text(),
            configuration_keys: g.option(|g| g.vec(Gen::text)),
        }),
        include_synonyms: g.bool(),
        include_documentation: if v >= 3 { g.bool() } else { false },
    }
}

pub fn describe_configs_response(g: &mut Gen, v: i16) -> DescribeConfigsResponse {
    DescribeConfigsResponse {
        throttle_time_ms: g.i32(),
        results: g.vec(|g| DescribeConfigsResult {
            error_code: g.error(),
            error_message: g.option(Gen::text),
            resource_type: g.i8(),
            resource_name: g.text(),
            configs: g.vec(|g| described(g, v)),
        }),
    }
}

fn described(g: &mut Gen, v: i16) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: g.text(),
        value: g.option(Gen::text),
        read_only: g.bool(),
        config_source: g.i8(),
        is_sensitive: g.bool(),
        synonyms: g.vec(|g| DescribeConfigsSynonym {
            name: g.text(),
            value: g.option(Gen::text),
            source: g.i8(),
        }),
        config_type: if v >= 3 { g.i8() } else { 0 },
        documentation: if v >= 3 { g.option(Gen::text) } else { Some(String::new()) },
    }
}

pub fn alter_configs_request(g: &mut Gen, _: i16) -> AlterConfigsRequest {
    AlterConfigsRequest {
        resources: g.vec(|g| AlterConfigsResource {
            resource_type: g.i8(),
            resource_name: g.text(),
            configs: g.vec(|g| AlterableConfig { name: g.text(), value: g.option(Gen::text) }),
        }),
        validate_only: g.bool(),
    }
}

pub fn alter_configs_response(g: &mut Gen, _: i16) -> AlterConfigsResponse {
    AlterConfigsResponse {
        throttle_time_ms: g.i32(),
        responses: g.vec(|g| AlterConfigsResourceResponse {
            error_code: g.error(),
            error_message: g.option(Gen::text),
            resource_type: g.i8(),
            resource_name: g.text(),
        }),
    }
}

pub fn incremental_alter_configs_request(g: &mut Gen, _: i16) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest {
        resources: g.vec(|g| IncrementalAlterConfigsResource {
            resource_type: g.i8(),
            resource_name: g.text(),
            configs: g.vec(|g| IncrementalAlterableConfig {
                name: g.text(),
                config_operation: g.i8(),
                value: g.option(Gen::text),
            }),
        }),
        validate_only: g.bool(),
    }
}

pub fn incremental_alter_configs_response(g: &mut Gen, _: i16) -> IncrementalAlterConfigsResponse {
    IncrementalAlterConfigsResponse {
        throttle_time_ms: g.i32(),
        responses: g.vec(|g| AlterConfigsResourceResponse {
            error_code: g.error(),
            error_message: g.option(Gen::text),
            resource_type: g.i8(),
            resource_name: g.text(),
        }),
    }
}
