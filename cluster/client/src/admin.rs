//! What the controller does: topics are created and deleted, producer ids handed out.
//!
//! Everything here is tried until the deadline. After an attempt without an answer, "exists already"
//! and "no such topic" may be the trace of our own first attempt; the errors say so, and the caller decides.

use crate::cluster::{Cluster, ControllerError, ControllerReason};
use crate::links::DescribeError;
use crate::metadata::TopicMetadata;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::Uuid;
use fulmar_wire::{
    CONFIG_DELETE, CONFIG_SET, CONFIG_SOURCE_TOPIC, CreatableTopic, CreatableTopicConfig,
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicState, DeleteTopicsRequest,
    DeleteTopicsResponse, ErrorCode, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterConfigsResponse, IncrementalAlterableConfig,
    InitProducerIdRequest, RESOURCE_TOPIC,
};

use std::collections::BTreeMap;

/// Why a topic was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// There is one of this name.
    #[error("the topic exists already")]
    Exists,
    /// The site refused.
    #[error("the site refused: {code}{}", explain(message))]
    Refused {
        /// The reason.
        code: ErrorCode,
        /// The reason, for people.
        message: Option<String>,
    },
    /// It was not created in time, and will not be.
    #[error("the topic was not created: {0}")]
    NotDone(ControllerReason),
    /// It may have been created.
    #[error("it is not known whether the topic was created: {0}")]
    Unknown(ControllerReason),
}

/// Why a topic was not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    /// There is none of this name.
    #[error("there is no such topic")]
    NoTopic,
    /// The site refused.
    #[error("the site refused: {code}{}", explain(message))]
    Refused {
        /// The reason.
        code: ErrorCode,
        /// The reason, for people.
        message: Option<String>,
    },
    /// It was not deleted in time, and will not be.
    #[error("the topic was not deleted: {0}")]
    NotDone(ControllerReason),
    /// It may have been deleted.
    #[error("it is not known whether the topic was deleted: {0}")]
    Unknown(ControllerReason),
}

/// Why a setting of a topic was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterTopicError {
    /// The site refused.
    #[error("the site refused: {code}{}", explain(message))]
    Refused {
        /// The reason.
        code: ErrorCode,
        /// The reason, for people.
        message: Option<String>,
    },
    /// It was not changed in time, and will not be.
    #[error("the setting was not changed: {0}")]
    NotDone(ControllerReason),
    /// It may have been changed.
    #[error("it is not known whether the setting was changed: {0}")]
    Unknown(ControllerReason),
}

impl AlterTopicError {
    /// Of an attempt that nobody answered.
    pub(crate) fn unanswered(error: ControllerError) -> Self {
        match error.may_have_happened {
            true => Self::Unknown(error.reason),
            false => Self::NotDone(error.reason),
        }
    }

    /// Of an answer, unless it says that it was done.
    pub(crate) fn unless_done(code: ErrorCode, message: Option<String>) -> Result<(), Self> {
        match code {
            ErrorCode::None => Ok(()),
            code => Err(Self::Refused { code, message }),
        }
    }
}

/// A producer id with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// The producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// Why there is no producer id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProducerIdError {
    /// The site refused.
    #[error("the site refused: {0}")]
    Refused(ErrorCode),
    /// None came in time.
    #[error("no producer id came in time: {0}")]
    NoAnswer(ControllerReason),
}

fn explain(message: &Option<String>) -> String {
    message.as_ref().map_or_else(String::new, |message| format!(" ({message})"))
}

fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

fn create_code(answer: &CreateTopicsResponse) -> ErrorCode {
    answer.topics.first().map_or(ErrorCode::UnknownServerError, |topic| topic.error_code)
}

fn delete_code(answer: &DeleteTopicsResponse) -> ErrorCode {
    match answer.responses.first().map(|topic| topic.error_code) {
        // Retriable for who reads, and final for who wants it gone.
        Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId) => {
            ErrorCode::ResourceNotFound
        }
        Some(code) => code,
        None => ErrorCode::UnknownServerError,
    }
}

fn alter_code(answer: &IncrementalAlterConfigsResponse) -> ErrorCode {
    answer.responses.first().map_or(ErrorCode::UnknownServerError, |topic| topic.error_code)
}

impl Cluster {
    /// The settings that a topic was given; those that it has by default are not among them.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn topic_settings(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<BTreeMap<String, String>, DescribeError> {
        let found = self.describe(RESOURCE_TOPIC, vec![name.to_owned()], timeout).await?;
        let mut settings = BTreeMap::new();
        for result in found {
            if result.error_code != ErrorCode::None {
                return Err(DescribeError::Refused(result.error_code));
            }
            let given = result.configs.into_iter();
            let given = given.filter(|setting| setting.config_source == CONFIG_SOURCE_TOPIC);
            settings.extend(given.map(|of| (of.name, of.value.unwrap_or_default())));
        }
        Ok(settings)
    }

    /// Changes settings of a topic, given as names and values; without a value a setting gets its
    /// default. The others stay (KIP-339).
    ///
    /// # Errors
    /// Why they were not changed, or that nobody knows.
    pub async fn alter_topic(
        &self,
        name: &str,
        changes: &[(String, Option<String>)],
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let change = |(name, value): &(String, Option<String>)| IncrementalAlterableConfig {
            name: name.clone(),
            config_operation: if value.is_some() { CONFIG_SET } else { CONFIG_DELETE },
            value: value.clone(),
        };
        let resource = IncrementalAlterConfigsResource {
            resource_type: RESOURCE_TOPIC,
            resource_name: name.to_owned(),
            configs: changes.iter().map(change).collect(),
        };
        let request =
            IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let asked = self.ask_controller(&request, alter_code, time::now() + timeout);
        let answer = asked.await.map_err(AlterTopicError::unanswered)?;
        let code = alter_code(&answer);
        let result = answer.responses.into_iter().next().unwrap_or_default();
        AlterTopicError::unless_done(code, result.error_message)
    }

    /// Creates a topic. Returns its id.
    ///
    /// # Errors
    /// Why it was not created, or that nobody knows.
    pub async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        timeout: Duration,
    ) -> Result<Uuid, CreateTopicError> {
        self.create_topic_with(name, partitions, &[], timeout).await
    }

    /// The same with settings, as names and values.
    ///
    /// # Errors
    /// Why it was not created, or that nobody knows.
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: u32,
        settings: &[(String, String)],
        timeout: Duration,
    ) -> Result<Uuid, CreateTopicError> {
        let setting = |(name, value): &(String, String)| CreatableTopicConfig {
            name: name.clone(),
            value: Some(value.clone()),
        };
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
            replication_factor: -1,
            configs: settings.iter().map(setting).collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: milliseconds(timeout),
            validate_only: false,
        };
        let asked = self.ask_controller(&request, create_code, time::now() + timeout);
        let answer = asked.await.map_err(|error| match error.may_have_happened {
            true => CreateTopicError::Unknown(error.reason),
            false => CreateTopicError::NotDone(error.reason),
        })?;
        let code = create_code(&answer);
        let result = answer.topics.into_iter().next().unwrap_or_default();
        match code {
            ErrorCode::None => Ok(result.topic_id),
            ErrorCode::TopicAlreadyExists => Err(CreateTopicError::Exists),
            code => Err(CreateTopicError::Refused { code, message: result.error_message }),
        }
    }

    /// Deletes a topic with all its records. It is named by its id: a request that comes late does nothing to one
    /// that has the name by then.
    ///
    /// # Errors
    /// Why it was not deleted, or that nobody knows.
    pub async fn delete_topic(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<(), DeleteTopicError> {
        let deadline = time::now() + timeout;
        let mut id = self.topic_id(name, deadline).await?;
        loop {
            let deleted = self.delete_once((name, id), deadline).await;
            if deleted != Err(DeleteTopicError::NoTopic) {
                return deleted;
            }
            // Whoever told the id may have been behind.
            match self.topic_id(name, deadline).await {
                Ok(now) if now.is_some() && now != id && time::now() < deadline => id = now,
                _ => return deleted,
            }
        }
    }

    /// The id of a topic, if whoever is asked knows it.
    async fn topic_id(
        &self,
        name: &str,
        deadline: Instant,
    ) -> Result<Option<Uuid>, DeleteTopicError> {
        let asked = self.refresh_topic(name, deadline).await;
        asked.map_err(|error| DeleteTopicError::NotDone(ControllerReason::Call(error)))?;
        let known = self.metadata();
        // What a node knows nothing of keeps the id that it had.
        let is_there = |topic: &&TopicMetadata| topic.error.is_none() && topic.id != Uuid::NIL;
        Ok(known.topics.get(name).filter(is_there).map(|topic| topic.id))
    }

    async fn delete_once(
        &self,
        (name, id): (&str, Option<Uuid>),
        deadline: Instant,
    ) -> Result<(), DeleteTopicError> {
        let state = match id {
            Some(topic_id) => DeleteTopicState { name: None, topic_id },
            None => DeleteTopicState { name: Some(name.to_owned()), topic_id: Uuid::NIL },
        };
        let request = DeleteTopicsRequest {
            topics: vec![state],
            timeout_ms: milliseconds(deadline.saturating_duration_since(time::now())),
            ..DeleteTopicsRequest::default()
        };
        let asked = self.ask_controller(&request, delete_code, deadline);
        let answer = asked.await.map_err(|error| match error.may_have_happened {
            true => DeleteTopicError::Unknown(error.reason),
            false => DeleteTopicError::NotDone(error.reason),
        })?;
        let code = delete_code(&answer);
        let result = answer.responses.into_iter().next().unwrap_or_default();
        match code {
            ErrorCode::None => Ok(()),
            ErrorCode::ResourceNotFound => Err(DeleteTopicError::NoTopic),
            code => Err(DeleteTopicError::Refused { code, message: result.error_message }),
        }
    }

    /// Asks for a producer id that nobody else has. It is an entry of the site's log, so an answer
    /// also shows that the site takes entries.
    ///
    /// # Errors
    /// Why none was handed out. One that was handed out without an answer is of no harm.
    pub async fn init_producer_id(
        &self,
        deadline: Instant,
    ) -> Result<ProducerIdentity, ProducerIdError> {
        let request = InitProducerIdRequest::default();
        let asked = self.ask_controller(&request, |answer| answer.error_code, deadline);
        let answer = asked.await.map_err(|error| ProducerIdError::NoAnswer(error.reason))?;
        match answer.error_code {
            ErrorCode::None => Ok(ProducerIdentity {
                producer_id: answer.producer_id,
                epoch: answer.producer_epoch,
            }),
            code => Err(ProducerIdError::Refused(code)),
        }
    }
}
