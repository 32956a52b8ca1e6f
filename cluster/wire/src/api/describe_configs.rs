//! DescribeConfigs (key 32).

use crate::ErrorCode;
use crate::message::message;

/// A thing with settings is a topic (`ConfigResource.Type.TOPIC`).
pub const RESOURCE_TOPIC: i8 = 2;

/// A resource that Kafka does not have: what a topic is made of that pipelines write, which can only be
/// looked at.
pub const RESOURCE_MADE_OF: i8 = 119;

/// A resource that Kafka does not have: a link to another site.
pub const RESOURCE_LINK: i8 = 120;

/// A resource that Kafka does not have: what becomes of a link, which can only be looked at.
pub const RESOURCE_LINK_STATUS: i8 = 122;

/// A resource that Kafka does not have: where the topic of this name may go.
pub const RESOURCE_RULE: i8 = 121;

/// A resource that Kafka does not have: the last changes of links, rules and pipelines, which can only be
/// looked at.
pub const RESOURCE_CHANGES: i8 = 123;

/// A resource that Kafka does not have: which topics are copies of those of other sites, which can only
/// be looked at.
pub const RESOURCE_MIRRORS: i8 = 124;

/// A resource that Kafka does not have: a pipeline.
pub const RESOURCE_PIPELINE: i8 = 125;

/// A resource that Kafka does not have: the state of a pipeline under a name.
pub const RESOURCE_SAVEPOINT: i8 = 126;

/// A resource that Kafka does not have: what becomes of a pipeline, which can only be looked at.
pub const RESOURCE_PIPELINE_STATUS: i8 = 127;

/// A thing with settings is a broker (`ConfigResource.Type.BROKER`).
pub const RESOURCE_BROKER: i8 = 4;

/// A value was given for the topic (`ConfigSource.TOPIC_CONFIG`).
pub const CONFIG_SOURCE_TOPIC: i8 = 1;

/// A value is what every topic has that is not given another (`ConfigSource.DEFAULT_CONFIG`).
pub const CONFIG_SOURCE_DEFAULT: i8 = 5;

message! {
    /// Things whose settings are asked for.
    pub struct DescribeConfigsRequest {
        /// The things.
        [0..] resources: Vec<DescribeConfigsResource>;
        /// Whether to name every place that a value may come from.
        [1..] include_synonyms: bool;
        /// Whether to explain the settings.
        [3..] include_documentation: bool, ignorable;
    }

    /// One thing: a topic or a broker.
    pub struct DescribeConfigsResource {
        /// What it is: [`RESOURCE_TOPIC`] or [`RESOURCE_BROKER`].
        [0..] resource_type: i8;
        /// The name of the topic, or the id of the broker.
        [0..] resource_name: String;
        /// The settings that are wanted; null for all.
        [0.., nullable 0..] configuration_keys: Option<Vec<String>>;
    }

    /// The settings.
    pub struct DescribeConfigsResponse {
        /// How long the broker held the request back to enforce a quota.
        [0..] throttle_time_ms: i32;
        /// One for each thing.
        [0..] results: Vec<DescribeConfigsResult>;
    }

    /// The settings of one thing.
    pub struct DescribeConfigsResult {
        /// The error, or none.
        [0..] error_code: ErrorCode;
        /// What went wrong, for people.
        [0.., nullable 0..] error_message: Option<String>;
        /// What it is.
        [0..] resource_type: i8;
        /// Its name.
        [0..] resource_name: String;
        /// Its settings.
        [0..] configs: Vec<DescribeConfigsResourceResult>;
    }

    /// One setting.
    pub struct DescribeConfigsResourceResult {
        /// Its name.
        [0..] name: String;
        /// Its value.
        [0.., nullable 0..] value: Option<String>;
        /// Whether it cannot be changed.
        [0..] read_only: bool;
        /// Where the value comes from: [`CONFIG_SOURCE_TOPIC`], [`CONFIG_SOURCE_DEFAULT`] and others.
        [1..] config_source: i8 = -1, ignorable;
        /// Whether the value must not be shown.
        [0..] is_sensitive: bool;
        /// Every place that the value may come from, the one that counts first.
        [1..] synonyms: Vec<DescribeConfigsSynonym>, ignorable;
        /// The type of the value.
        [3..] config_type: i8, ignorable;
        /// What the setting is for.
        [3.., nullable 3..] documentation: Option<String> = Some(String::new()), ignorable;
    }

    /// A place that a value may come from.
    pub struct DescribeConfigsSynonym {
        /// The name of the setting there.
        [1..] name: String;
        /// The value there.
        [1.., nullable 0..] value: Option<String>;
        /// Which place it is.
        [1..] source: i8;
    }
}
