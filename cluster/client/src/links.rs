//! Links to other sites, and the rules by which topics may go there.
//!
//! Invariant: what is told of a link or a rule has a number; who changes it and names that number changes
//! what he has seen, or nothing.

mod status;

pub use status::{Gap, LinkStatus, Sent, Taken};

use crate::admin::AlterTopicError;
use crate::cluster::{Cluster, ControllerReason};
use crate::replace::Definitions;
use fulmar_host::time::{self, Duration};
use fulmar_types::link::{CHANGED_BY, CHANGED_MS, LinkDefinition, NUMBER};
use fulmar_types::rule::RuleDefinition;
use fulmar_wire::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
    DescribeConfigsResult, ErrorCode, RESOURCE_CHANGES, RESOURCE_LINK, RESOURCE_LINK_STATUS,
    RESOURCE_MADE_OF, RESOURCE_MIRRORS, RESOURCE_RULE,
};
use std::collections::BTreeMap;

/// How many links or rules one request asks for.
pub(crate) const DESCRIBED_AT_ONCE: usize = 8;

/// The key by which the gaps of a link are asked for.
const GAPS: &str = "gaps";

/// What a topic is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MadeOf {
    /// Other topics, by name.
    pub of: Vec<String>,
    /// There are more, and which is not known.
    pub has_more: bool,
}

/// Something that the site has laid down, with the number of its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaidDown<T> {
    /// The number.
    pub number: u64,
    /// Who made it what it is, and when, in milliseconds since 1970.
    pub changed: (String, u64),
    /// What it is.
    pub is: T,
}

/// A change of a link or a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeTold {
    /// `link` or `rule`.
    pub of: String,
    /// The name of the link, or the topic of the rule.
    pub name: String,
    /// When, in milliseconds since 1970.
    pub wall_ms: u64,
    /// By whom, as the node knew him that took the request.
    pub who: String,
    /// What differs.
    pub what: String,
}

impl ChangeTold {
    /// Reads a value of `broker/src/handlers/link_config.rs`.
    fn read(value: &str) -> Option<Self> {
        let mut fields = value.split('\t').map(str::to_owned);
        let (of, name) = (fields.next()?, fields.next()?);
        let wall_ms = fields.next()?.parse().ok()?;
        Some(Self { of, name, wall_ms, who: fields.next()?, what: fields.next()? })
    }
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
        self.lay_down(Definitions::default().link(name, expected, definition), timeout).await
    }

    /// Says where a topic may go, and in which form; a rule without regions takes it back. `expected`
    /// is as for a link.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub async fn set_rule(
        &self,
        topic: &str,
        expected: Option<u64>,
        rule: &RuleDefinition,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        self.lay_down(Definitions::default().rule(topic, expected, rule), timeout).await
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

    /// All rules, by topic.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn rules(
        &self,
        timeout: Duration,
    ) -> Result<BTreeMap<String, LaidDown<RuleDefinition>>, DescribeError> {
        let definition = |settings: &[(String, String)]| {
            let settings = settings.iter().map(|(name, value)| (&**name, &**value));
            RuleDefinition::from_settings(settings).map_err(DescribeError::Unclear)
        };
        self.laid_down(RESOURCE_RULE, timeout, definition).await
    }

    /// What becomes of a link. `None` if there is none of the name.
    ///
    /// # Errors
    /// Why it is not known.
    pub async fn link_status(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Option<LinkStatus>, DescribeError> {
        let status = |values: Vec<(&str, &str)>| LinkStatus::read(values);
        self.status_of((RESOURCE_LINK_STATUS, name), timeout, status).await
    }

    /// What will never come over a link, or went before it had arrived: all of it, an answer at a time. `None` if
    /// there is no link of the name. It is truncated if a node answers that does not tell the rest.
    ///
    /// # Errors
    /// Why it is not known.
    pub async fn link_gaps(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Option<LinkStatus>, DescribeError> {
        let (mut all, mut key) = (LinkStatus::default(), GAPS.to_owned());
        loop {
            let asked = (RESOURCE_LINK_STATUS, name, Some(vec![key]));
            let read = |values: Vec<(&str, &str)>| LinkStatus::read(values);
            let Some(part) = self.told_of(asked, timeout, read).await? else { return Ok(None) };
            match all.add_gaps(part) {
                Some(next) => key = next,
                None => return Ok(Some(all)),
            }
        }
    }

    /// The topics that are copies of those of other sites: the link that brings each, and its name at
    /// the other site.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn mirrors(
        &self,
        timeout: Duration,
    ) -> Result<BTreeMap<String, (String, String)>, DescribeError> {
        let told = self.describe(RESOURCE_MIRRORS, vec![String::new()], timeout).await?;
        let mirrors = told.into_iter().flat_map(|result| result.configs);
        let mirror = |(name, value): (String, Option<String>)| {
            let value = value.unwrap_or_default();
            let unclear = || DescribeError::Unclear("a copy has an unknown form".to_owned());
            let (link, origin) = value.split_once('/').ok_or_else(unclear)?;
            Ok((name, (link.to_owned(), origin.to_owned())))
        };
        mirrors.map(|of| mirror((of.name, of.value))).collect()
    }

    /// The topics that one is made of that pipelines write or once wrote, by name, and whether there are
    /// more. `None` if none did.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn made_of(
        &self,
        topic: &str,
        timeout: Duration,
    ) -> Result<Option<MadeOf>, DescribeError> {
        let made_of = |values: Vec<(&str, &str)>| {
            let mut made_of = MadeOf::default();
            for (kind, name) in values {
                match kind.split_once('/') {
                    Some(("of", _)) => made_of.of.push(name.to_owned()),
                    None if kind == "more" => made_of.has_more = true,
                    _ => {}
                }
            }
            Some(made_of)
        };
        self.status_of((RESOURCE_MADE_OF, topic), timeout, made_of).await
    }

    /// The topics that pipelines write or once wrote, by name.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn made(&self, timeout: Duration) -> Result<Vec<String>, DescribeError> {
        let all = self.describe(RESOURCE_MADE_OF, vec![String::new()], timeout).await?;
        Ok(all.into_iter().map(|result| result.resource_name).collect())
    }

    /// The last changes of links and rules, oldest first.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn changes(&self, timeout: Duration) -> Result<Vec<ChangeTold>, DescribeError> {
        let told = self.describe(RESOURCE_CHANGES, vec![String::new()], timeout).await?;
        let values = told.into_iter().flat_map(|result| result.configs);
        let change = |value: String| {
            let unclear = || DescribeError::Unclear("a change has an unknown form".to_owned());
            ChangeTold::read(&value).ok_or_else(unclear)
        };
        values.map(|of| change(of.value.unwrap_or_default())).collect()
    }

    pub(crate) async fn laid_down<T>(
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
                let is_about = |name: &str| matches!(name, NUMBER | CHANGED_BY | CHANGED_MS);
                let (about, settings): (Vec<_>, Vec<_>) =
                    settings.partition(|(name, _)| is_about(name));
                let about: BTreeMap<String, String> = about.into_iter().collect();
                let number = about.get(NUMBER).and_then(|number| number.parse().ok());
                let unclear = || DescribeError::Unclear("it has no number".to_owned());
                let number = number.ok_or_else(unclear)?;
                let who = about.get(CHANGED_BY).cloned().unwrap_or_default();
                let wall_ms = about.get(CHANGED_MS).and_then(|ms| ms.parse().ok());
                let changed = (who, wall_ms.unwrap_or_default());
                let is = read(&settings)?;
                found.insert(result.resource_name, LaidDown { number, changed, is });
            }
        }
        Ok(found)
    }

    /// What becomes of one thing, read from names and values. `None` if there is none of the name.
    pub(crate) async fn status_of<T>(
        &self,
        (resource_type, name): (i8, &str),
        timeout: Duration,
        read: impl FnOnce(Vec<(&str, &str)>) -> Option<T>,
    ) -> Result<Option<T>, DescribeError> {
        self.told_of((resource_type, name, None), timeout, read).await
    }

    /// The same of what some keys name.
    async fn told_of<T>(
        &self,
        (resource_type, name, configuration_keys): (i8, &str, Option<Vec<String>>),
        timeout: Duration,
        read: impl FnOnce(Vec<(&str, &str)>) -> Option<T>,
    ) -> Result<Option<T>, DescribeError> {
        let resource_name = name.to_owned();
        let asked = DescribeConfigsResource { resource_type, resource_name, configuration_keys };
        let found = self.described(vec![asked], timeout).await?;
        let nothing = || DescribeError::Unclear("it is empty".to_owned());
        let result = found.into_iter().next().ok_or_else(nothing)?;
        match result.error_code {
            ErrorCode::None => {}
            ErrorCode::ResourceNotFound => return Ok(None),
            code => return Err(DescribeError::Refused(code)),
        }
        let values = result.configs.iter();
        let values = values.map(|of| (&*of.name, of.value.as_deref().unwrap_or_default()));
        let unclear = || DescribeError::Unclear("a value has an unknown form".to_owned());
        read(values.collect()).map(Some).ok_or_else(unclear)
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
        self.described(names.into_iter().map(resource).collect(), timeout).await
    }

    async fn described(
        &self,
        resources: Vec<DescribeConfigsResource>,
        timeout: Duration,
    ) -> Result<Vec<DescribeConfigsResult>, DescribeError> {
        let request = DescribeConfigsRequest { resources, ..DescribeConfigsRequest::default() };
        let asked = self.ask_controller(&request, describe_code, time::now() + timeout);
        let answer = asked.await.map_err(|error| DescribeError::NoAnswer(error.reason))?;
        Ok(answer.results)
    }
}
