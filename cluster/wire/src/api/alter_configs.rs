//! AlterConfigs (key 33), which replaces all settings of a thing, and IncrementalAlterConfigs
//! (key 44, KIP-339), which changes some.

use crate::ErrorCode;
use crate::message::message;

/// [`IncrementalAlterableConfig::config_operation`]: the setting gets the value.
pub const CONFIG_SET: i8 = 0;

/// [`IncrementalAlterableConfig::config_operation`]: the setting gets its default.
pub const CONFIG_DELETE: i8 = 1;

message! {
    /// Things with all the settings that they are to have.
    pub struct AlterConfigsRequest {
        /// The things.
        [0..] resources: Vec<AlterConfigsResource>;
        /// Whether to check the request and change nothing.
        [0..] validate_only: bool;
    }

    /// One thing: a topic or a broker.
    pub struct AlterConfigsResource {
        /// What it is: [`crate::RESOURCE_TOPIC`] or [`crate::RESOURCE_BROKER`].
        [0..] resource_type: i8;
        /// The name of the topic, or the id of the broker.
        [0..] resource_name: String;
        /// All of its settings that are not to have their default.
        [0..] configs: Vec<AlterableConfig>;
    }

    /// A setting.
    pub struct AlterableConfig {
        /// Its name.
        [0..] name: String;
        /// Its value.
        [0.., nullable 0..] value: Option<String>;
    }

    /// What became of each thing.
    pub struct AlterConfigsResponse {
        /// How long the broker held the request back to enforce a quota.
        [0..] throttle_time_ms: i32;
        /// The outcomes.
        [0..] responses: Vec<AlterConfigsResourceResponse>;
    }

    /// What became of one thing; the same for both requests.
    pub struct AlterConfigsResourceResponse {
        /// The error, or none.
        [0..] error_code: ErrorCode;
        /// What went wrong, for people.
        [0.., nullable 0..] error_message: Option<String>;
        /// What it is.
        [0..] resource_type: i8;
        /// Its name.
        [0..] resource_name: String;
    }

    /// Things with changes to their settings.
    pub struct IncrementalAlterConfigsRequest {
        /// The things.
        [0..] resources: Vec<IncrementalAlterConfigsResource>;
        /// Whether to check the request and change nothing.
        [0..] validate_only: bool;
    }

    /// One thing: a topic or a broker.
    pub struct IncrementalAlterConfigsResource {
        /// What it is: [`crate::RESOURCE_TOPIC`] or [`crate::RESOURCE_BROKER`].
        [0..] resource_type: i8;
        /// The name of the topic, or the id of the broker.
        [0..] resource_name: String;
        /// The changes.
        [0..] configs: Vec<IncrementalAlterableConfig>;
    }

    /// A change of one setting.
    pub struct IncrementalAlterableConfig {
        /// Its name.
        [0..] name: String;
        /// [`CONFIG_SET`], [`CONFIG_DELETE`], 2 to add to a list, or 3 to take from one.
        [0..] config_operation: i8;
        /// The value.
        [0.., nullable 0..] value: Option<String>;
    }

    /// What became of each thing.
    pub struct IncrementalAlterConfigsResponse {
        /// How long the broker held the request back to enforce a quota.
        [0..] throttle_time_ms: i32;
        /// The outcomes.
        [0..] responses: Vec<AlterConfigsResourceResponse>;
    }
}
