//! Changes of links, rules, pipelines and savepoints: all settings of one are replaced, or it is removed. Links and
//! rules may be changed together, with one request.
//!
//! A request is sent again if nobody answers, and a node that was cut off may carry out the first one long after
//! another has answered the second.
//!
//! Invariant: every request names the numbers of what it changes. So of all requests for one change one is
//! done at most, and none is done after the thing has become something else.
//!
//! Never: a number that was looked up anew for a request that may be on its way.

use crate::admin::AlterTopicError;
use crate::cluster::Cluster;
use crate::links::{DESCRIBED_AT_ONCE, DescribeError};
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::link::{CHANGED_BY, CHANGED_MS, LinkDefinition, NUMBER};
use fulmar_types::pipeline::{FILE, LATENCY_MS, PAUSED, START, Start};
use fulmar_types::rule::RuleDefinition;
use fulmar_wire::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResponse, AlterableConfig,
    DescribeConfigsResult, ErrorCode, RESOURCE_LINK, RESOURCE_PIPELINE, RESOURCE_RULE,
};
use std::collections::BTreeMap;

type Settings = Vec<(String, String)>;

fn alter_code(answer: &AlterConfigsResponse) -> ErrorCode {
    // All that is asked for together is done, or nothing is; a node of an older build may have done a part.
    let failed = answer.responses.iter().find(|of| !of.error_code.is_none());
    match failed.or(answer.responses.first()).map(|of| of.error_code) {
        // Retriable for who reads, and final for who lays something down that needs the topic: whoever
        // wants to wait for the topic knows that, and the others want to hear of it.
        Some(ErrorCode::UnknownTopicOrPartition) => ErrorCode::ResourceNotFound,
        Some(code) => code,
        None => ErrorCode::UnknownServerError,
    }
}

fn unseen(error: DescribeError) -> AlterTopicError {
    match error {
        DescribeError::NoAnswer(reason) => AlterTopicError::NotDone(reason),
        DescribeError::Refused(code) => AlterTopicError::Refused { code, message: None },
        DescribeError::Unclear(text) => {
            AlterTopicError::Refused { code: ErrorCode::UnknownServerError, message: Some(text) }
        }
    }
}

/// How something is that is to be changed.
struct Seen {
    /// Its number; 0 if the site does not tell it.
    number: u64,
    /// `None` if it is not there.
    settings: Option<BTreeMap<String, String>>,
}

impl Seen {
    fn read(found: DescribeConfigsResult) -> Result<Self, DescribeError> {
        let settings = found.configs.into_iter();
        let settings = settings.map(|of| (of.name, of.value.unwrap_or_default()));
        let mut settings: BTreeMap<String, String> = settings.collect();
        settings.retain(|name, _| name != CHANGED_BY && name != CHANGED_MS);
        let number = settings.remove(NUMBER).and_then(|number| number.parse().ok()).unwrap_or(0);
        match found.error_code {
            ErrorCode::None => Ok(Self { number, settings: Some(settings) }),
            ErrorCode::ResourceNotFound => Ok(Self { number, settings: None }),
            code => Err(DescribeError::Refused(code)),
        }
    }

    /// Whether it is what somebody wants it to be: not there if no settings are left for it.
    fn is(&self, of: &Wanted) -> bool {
        let (resource_type, wanted) = (of.resource_type, &of.settings);
        // With what a pipeline began cannot be seen in it, so nobody knows whether it did.
        if wanted.iter().any(|(name, value)| name == START && *value != Start::Keep.to_string()) {
            return false;
        }
        // Nor can what goes with it.
        let lasts = |name: &str| {
            resource_type != RESOURCE_PIPELINE || [FILE, PAUSED, LATENCY_MS].contains(&name)
        };
        let wanted: Vec<_> = wanted.iter().filter(|(name, _)| lasts(name)).collect();
        let Some(is) = &self.settings else { return wanted.is_empty() };
        // Of a rule and a link all is said, and what is not said is not so.
        let is_whole = matches!(resource_type, RESOURCE_LINK | RESOURCE_RULE);
        let has_all = wanted.iter().all(|(name, value)| is.get(name) == Some(value));
        has_all && !wanted.is_empty() && (!is_whole || wanted.len() == is.len())
    }
}

/// Something that is to become another one, and what it must be before.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The type of its resource.
    pub resource_type: i8,
    /// Its name.
    pub name: String,
    /// The number that it must have, 0 if there must be none, `None` if that does not matter.
    pub expected: Option<u64>,
    /// All its settings; without any it is removed.
    pub settings: Settings,
}

impl Wanted {
    fn resource(&self, number: Option<u64>) -> AlterConfigsResource {
        let number = number.map(|number| (NUMBER.to_owned(), number.to_string()));
        let settings = self.settings.iter().cloned().chain(number);
        let setting = |(name, value)| AlterableConfig { name, value: Some(value) };
        AlterConfigsResource {
            resource_type: self.resource_type,
            resource_name: self.name.clone(),
            configs: settings.map(setting).collect(),
        }
    }
}

/// Links and rules that are to change together: all of them, or none.
#[derive(Clone, Debug, Default)]
pub struct Definitions(Vec<Wanted>);

impl Definitions {
    /// Also defines a link anew, or removes it. `expected` is the number that it must have, 0 if there must be
    /// none, `None` if that does not matter. A link that gives way to another one comes before that.
    pub fn link(
        &mut self,
        name: &str,
        expected: Option<u64>,
        definition: Option<&LinkDefinition>,
    ) -> &mut Self {
        let settings = definition.map(LinkDefinition::settings).unwrap_or_default();
        self.add((RESOURCE_LINK, name), expected, settings)
    }

    /// Also says where a topic may go, and in which form; a rule without regions takes it back. `expected` is as
    /// for a link.
    pub fn rule(&mut self, topic: &str, expected: Option<u64>, rule: &RuleDefinition) -> &mut Self {
        self.add((RESOURCE_RULE, topic), expected, rule.settings())
    }

    fn add(
        &mut self,
        (resource_type, name): (i8, &str),
        expected: Option<u64>,
        settings: Settings,
    ) -> &mut Self {
        self.0.push(Wanted { resource_type, name: name.to_owned(), expected, settings });
        self
    }
}

impl Cluster {
    /// Changes links and rules together: whatever becomes of it, at no time some of them are what they were and
    /// others what they are to be. Each may be named once.
    ///
    /// # Errors
    /// Why none of it was done, or that nobody knows.
    pub async fn lay_down(
        &self,
        definitions: &Definitions,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        if definitions.0.is_empty() {
            return Ok(());
        }
        self.replace_all(&definitions.0, timeout).await
    }

    /// Replaces all settings of something, or removes it if there are none. `expected` is the number that it
    /// must have, 0 if there must be none, `None` if that does not matter.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub(crate) async fn replace_settings(
        &self,
        (resource_type, name): (i8, &str),
        expected: Option<u64>,
        settings: Settings,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let wanted = Wanted { resource_type, name: name.to_owned(), expected, settings };
        self.replace_all(&[wanted], timeout).await
    }

    /// The same of several, as one request.
    async fn replace_all(
        &self,
        wanted: &[Wanted],
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let deadline = time::now() + timeout;
        let is_known = |of: &Wanted| of.expected.is_some_and(|number| number > 0);
        let unknown: Vec<&Wanted> = wanted.iter().filter(|of| !is_known(of)).collect();
        let mut seen = self.seen(&unknown, deadline).await.map_err(unseen)?.into_iter();
        let numbers = wanted.iter().map(|of| match of.expected.filter(|_| is_known(of)) {
            Some(number) => number,
            None => match seen.next().expect("it was looked up") {
                // There is one where none must be; the site says so.
                seen if of.expected == Some(0) && seen.settings.is_some() => 0,
                seen => seen.number,
            },
        });
        let mut numbers: Vec<u64> = numbers.collect();
        let mut may_be_done = false;
        loop {
            let resources = wanted.iter().zip(&numbers);
            let resources = resources.map(|(of, number)| of.resource(Some(*number))).collect();
            let (done, again) = self.replace_once(resources, deadline).await;
            may_be_done |= again;
            let is_refused = matches!(
                &done,
                Err(AlterTopicError::Refused { code: ErrorCode::InvalidRequest, .. })
            );
            let may_be_renewed = wanted.iter().all(|of| of.expected.is_none());
            if !is_refused || !(may_be_done || may_be_renewed) {
                return done;
            }
            // Something has become something else: perhaps by the request that nobody has answered.
            let looked_up: Vec<&Wanted> = wanted.iter().collect();
            let Ok(all) = self.seen(&looked_up, deadline).await else { return done };
            // Or all is as it was, or whoever is asked is behind.
            if !all.iter().zip(&numbers).any(|(seen, number)| seen.number > *number) {
                return done;
            }
            if may_be_done && all.iter().zip(wanted).all(|(seen, of)| seen.is(of)) {
                return Ok(());
            }
            if !may_be_renewed || time::now() >= deadline {
                return done;
            }
            // No request with the numbers before can be done any more.
            numbers = all.iter().map(|seen| seen.number).collect();
        }
    }

    /// Asks for it. Returns also whether a request may have been carried out that nobody has answered.
    async fn replace_once(
        &self,
        resources: Vec<AlterConfigsResource>,
        deadline: Instant,
    ) -> (Result<(), AlterTopicError>, bool) {
        let request = AlterConfigsRequest { resources, validate_only: false };
        match self.ask_controller_again(&request, alter_code, deadline).await {
            Ok((answer, again)) => {
                let code = alter_code(&answer);
                let failed = answer.responses.into_iter().find(|of| !of.error_code.is_none());
                let result = failed.unwrap_or_default();
                (AlterTopicError::unless_done(code, result.error_message), again)
            }
            Err(error) => {
                let again = error.may_have_happened;
                (Err(AlterTopicError::unanswered(error)), again)
            }
        }
    }

    /// Asks for a change of whatever there is.
    pub(crate) async fn replace_any(
        &self,
        wanted: &Wanted,
        deadline: Instant,
    ) -> Result<(), AlterTopicError> {
        self.replace_once(vec![wanted.resource(None)], deadline).await.0
    }

    /// How all of this is, in the same order.
    async fn seen(
        &self,
        wanted: &[&Wanted],
        deadline: Instant,
    ) -> Result<Vec<Seen>, DescribeError> {
        let mut all = Vec::with_capacity(wanted.len());
        let of_one_type = wanted.chunk_by(|one, next| one.resource_type == next.resource_type);
        for some in of_one_type.flat_map(|of| of.chunks(DESCRIBED_AT_ONCE)) {
            let names: Vec<String> = some.iter().map(|of| of.name.clone()).collect();
            let timeout = deadline.saturating_duration_since(time::now());
            let found = self.describe(some[0].resource_type, names, timeout).await?;
            if found.len() != some.len() {
                return Err(DescribeError::Unclear("it is not about what was asked".to_owned()));
            }
            for result in found {
                all.push(Seen::read(result)?);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(settings: Option<&[(&str, &str)]>) -> Seen {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Seen { number: 1, settings: settings.map(|settings| settings.iter().map(owned).collect()) }
    }

    #[test]
    fn what_is_seen_is_what_was_wanted_or_not() {
        let wanted = |settings: &[(&str, &str)]| -> Settings {
            settings.iter().map(|of| (of.0.to_owned(), of.1.to_owned())).collect()
        };
        let of = |resource_type, is, settings: &[_]| {
            let (name, settings) = ("t".to_owned(), wanted(settings));
            seen(is).is(&Wanted { resource_type, name, expected: None, settings })
        };
        let eu: &[_] = &[("regions", "eu")];
        assert!(of(RESOURCE_RULE, Some(eu), eu));
        assert!(!of(RESOURCE_RULE, Some(eu), &[("regions", "us")]));
        assert!(!of(RESOURCE_RULE, Some(&[("regions", "eu"), ("key", "drop")]), eu));
        assert!(!of(RESOURCE_RULE, Some(eu), &[]));
        assert!(of(RESOURCE_RULE, None, &[]));
        assert!(!of(RESOURCE_RULE, None, eu));
        let runs: &[_] = &[("file", "a"), ("paused", "false")];
        assert!(of(RESOURCE_PIPELINE, Some(runs), &[("file", "a"), ("start", "keep")]));
        assert!(!of(RESOURCE_PIPELINE, Some(runs), &[("file", "a"), ("start", "fresh")]));
        assert!(!of(RESOURCE_PIPELINE, Some(runs), &[("file", "a"), ("paused", "true")]));
        assert!(of(RESOURCE_PIPELINE, None, &[("savepoints", "true")]));
        assert!(!of(RESOURCE_PIPELINE, Some(runs), &[("savepoints", "true")]));
    }
}
