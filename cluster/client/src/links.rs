//! Links to other sites, and the rules by which topics may go there.
//!
//! Invariant: what is told of a link or a rule has a number; who changes it and names that number changes
//! what he has seen, or nothing.

use crate::admin::AlterTopicError;
use crate::cluster::{Cluster, ControllerReason};
use fulmar_host::time::{self, Duration};
use fulmar_types::link::{LinkDefinition, NUMBER, list};
use fulmar_wire::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResponse, AlterableConfig,
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
    DescribeConfigsResult, ErrorCode, RESOURCE_LINK, RESOURCE_RULE,
};
use std::collections::BTreeMap;

/// How many links or rules one request asks for.
const DESCRIBED_AT_ONCE: usize = 8;

/// Something that the site has laid down, with the number of its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaidDown<T> {
    /// The number.
    pub number: u64,
    /// What it is.
    pub is: T,
}

/// Why links or rules are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// The site refused.
    #[error("the site refused: {0}")]
    Refused(ErrorCode),
    /// Nobody answered in time.
    #[error("no answer came in time: {0}")]
    NoAnswer(ControllerReason),
    /// What came is not what was asked for.
    #[error("the answer makes no sense: {0}")]
    Unclear(String),
}

fn describe_code(answer: &DescribeConfigsResponse) -> ErrorCode {
    answer.results.first().map_or(ErrorCode::None, |result| result.error_code)
}

fn alter_code(answer: &AlterConfigsResponse) -> ErrorCode {
    answer.responses.first().map_or(ErrorCode::UnknownServerError, |of| of.error_code)
}

impl Cluster {
    /// Defines a link anew, or removes it. `expected` is the number that it must have, 0 if there
    /// must be none, `None` if that does not matter.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub async fn set_link(
        &self,
        name: &str,
        expected: Option<u64>,
        definition: Option<&LinkDefinition>,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let settings = definition.map(LinkDefinition::settings).unwrap_or_default();
        self.replace_settings((RESOURCE_LINK, name), expected, settings, timeout).await
    }

    /// Lets a topic go to some regions and to no others. `expected` is as for a link.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub async fn set_rule(
        &self,
        topic: &str,
        expected: Option<u64>,
        regions: &[String],
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let settings = match regions {
            [] => Vec::new(),
            some => vec![("regions".to_owned(), some.join(","))],
        };
        self.replace_settings((RESOURCE_RULE, topic), expected, settings, timeout).await
    }

    /// All links, by name.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn links(
        &self,
        timeout: Duration,
    ) -> Result<BTreeMap<String, LaidDown<LinkDefinition>>, DescribeError> {
        let definition = |settings: &[(String, String)]| {
            let settings = settings.iter().map(|(name, value)| (&**name, &**value));
            LinkDefinition::from_settings(settings).map_err(DescribeError::Unclear)
        };
        self.laid_down(RESOURCE_LINK, timeout, definition).await
    }

    /// The regions that each topic with a rule may go to.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn rules(
        &self,
        timeout: Duration,
    ) -> Result<BTreeMap<String, LaidDown<Vec<String>>>, DescribeError> {
        let regions = |settings: &[(String, String)]| match settings {
            [(_, regions)] => Ok(list(regions)),
            _ => Err(DescribeError::Unclear("a rule has other settings".to_owned())),
        };
        self.laid_down(RESOURCE_RULE, timeout, regions).await
    }

    async fn laid_down<T>(
        &self,
        resource_type: i8,
        timeout: Duration,
        read: impl Fn(&[(String, String)]) -> Result<T, DescribeError>,
    ) -> Result<BTreeMap<String, LaidDown<T>>, DescribeError> {
        let all = self.describe(resource_type, vec![String::new()], timeout).await?;
        let names: Vec<String> = all.into_iter().map(|result| result.resource_name).collect();
        let mut found = BTreeMap::new();
        for names in names.chunks(DESCRIBED_AT_ONCE) {
            for result in self.describe(resource_type, names.to_vec(), timeout).await? {
                match result.error_code {
                    ErrorCode::None => {}
                    // It was removed meanwhile.
                    ErrorCode::ResourceNotFound => continue,
                    code => return Err(DescribeError::Refused(code)),
                }
                let settings = result.configs.into_iter();
                let settings = settings.map(|of| (of.name, of.value.unwrap_or_default()));
                let (numbers, settings): (Vec<_>, Vec<_>) =
                    settings.partition(|(name, _)| name == NUMBER);
                let number = numbers.first().and_then(|(_, number)| number.parse().ok());
                let unclear = || DescribeError::Unclear("it has no number".to_owned());
                let number = number.ok_or_else(unclear)?;
                found.insert(result.resource_name, LaidDown { number, is: read(&settings)? });
            }
        }
        Ok(found)
    }

    pub(crate) async fn describe(
        &self,
        resource_type: i8,
        names: Vec<String>,
        timeout: Duration,
    ) -> Result<Vec<DescribeConfigsResult>, DescribeError> {
        let resource = |resource_name| DescribeConfigsResource {
            resource_type,
            resource_name,
            ..DescribeConfigsResource::default()
        };
        let resources = names.into_iter().map(resource).collect();
        let request = DescribeConfigsRequest { resources, ..DescribeConfigsRequest::default() };
        let asked = self.ask_controller(&request, describe_code, time::now() + timeout);
        let answer = asked.await.map_err(|error| DescribeError::NoAnswer(error.reason))?;
        Ok(answer.results)
    }

    async fn replace_settings(
        &self,
        (resource_type, name): (i8, &str),
        expected: Option<u64>,
        mut settings: Vec<(String, String)>,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        settings.extend(expected.map(|number| (NUMBER.to_owned(), number.to_string())));
        let setting = |(name, value)| AlterableConfig { name, value: Some(value) };
        let resource = AlterConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configs: settings.into_iter().map(setting).collect(),
        };
        let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
        let asked = self.ask_controller(&request, alter_code, time::now() + timeout);
        let answer = asked.await.map_err(|error| match error.may_have_happened {
            true => AlterTopicError::Unknown(error.reason),
            false => AlterTopicError::NotDone(error.reason),
        })?;
        match alter_code(&answer) {
            ErrorCode::None => Ok(()),
            code => {
                let result = answer.responses.into_iter().next().unwrap_or_default();
                Err(AlterTopicError::Refused { code, message: result.error_message })
            }
        }
    }
}
