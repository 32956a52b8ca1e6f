//! Changes of links, rules, pipelines and savepoints: all settings of one are replaced, or it is removed.
//!
//! A request is sent again if nobody answers, and a node that was cut off may carry out the first one long after
//! another has answered the second.
//!
//! Invariant: every request names the number of what it changes. So of all requests for one change one is
//! done at most, and none is done after the thing has become something else.
//!
//! Never: a number that was looked up anew for a request that may be on its way.

use crate::admin::AlterTopicError;
use crate::cluster::Cluster;
use crate::links::DescribeError;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::link::{CHANGED_BY, CHANGED_MS, NUMBER};
use fulmar_types::pipeline::{FILE, LATENCY_MS, PAUSED, START, Start};
use fulmar_wire::{
    AlterConfigsRequest, AlterConfigsResource, AlterConfigsResponse, AlterableConfig,
    DescribeConfigsResult, ErrorCode, RESOURCE_LINK, RESOURCE_PIPELINE, RESOURCE_RULE,
};
use std::collections::BTreeMap;

type Settings = Vec<(String, String)>;

fn alter_code(answer: &AlterConfigsResponse) -> ErrorCode {
    match answer.responses.first().map(|of| of.error_code) {
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
    fn is(&self, resource_type: i8, wanted: &Settings) -> bool {
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

impl Cluster {
    /// Replaces all settings of something, or removes it if there are none. `expected` is the number that it
    /// must have, 0 if there must be none, `None` if that does not matter.
    ///
    /// # Errors
    /// Why that was not done, or that nobody knows.
    pub(crate) async fn replace_settings(
        &self,
        of: (i8, &str),
        expected: Option<u64>,
        settings: Settings,
        timeout: Duration,
    ) -> Result<(), AlterTopicError> {
        let deadline = time::now() + timeout;
        let mut number = match expected {
            Some(number) if number > 0 => number,
            _ => match self.seen(of, deadline).await.map_err(unseen)? {
                // There is one where none must be; the site says so.
                seen if expected == Some(0) && seen.settings.is_some() => 0,
                seen => seen.number,
            },
        };
        let mut may_be_done = false;
        loop {
            let (done, again) = self.replace_once(of, Some(number), &settings, deadline).await;
            may_be_done |= again;
            let is_refused = matches!(
                &done,
                Err(AlterTopicError::Refused { code: ErrorCode::InvalidRequest, .. })
            );
            if !is_refused || !(may_be_done || expected.is_none()) {
                return done;
            }
            // It has become something else: perhaps by the request that nobody has answered.
            let Ok(seen) = self.seen(of, deadline).await else { return done };
            // Or it is as it was, or whoever is asked is behind.
            if seen.number <= number {
                return done;
            }
            if may_be_done && seen.is(of.0, &settings) {
                return Ok(());
            }
            if expected.is_some() || time::now() >= deadline {
                return done;
            }
            // No request with the number before can be done any more.
            number = seen.number;
        }
    }

    /// Asks for it with the number that it must have. Returns also whether a request may have been carried out
    /// that nobody has answered.
    pub(crate) async fn replace_once(
        &self,
        (resource_type, name): (i8, &str),
        number: Option<u64>,
        settings: &Settings,
        deadline: Instant,
    ) -> (Result<(), AlterTopicError>, bool) {
        let number = number.map(|number| (NUMBER.to_owned(), number.to_string()));
        let settings = settings.iter().cloned().chain(number);
        let setting = |(name, value)| AlterableConfig { name, value: Some(value) };
        let resource = AlterConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configs: settings.map(setting).collect(),
        };
        let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
        match self.ask_controller_again(&request, alter_code, deadline).await {
            Ok((answer, again)) => {
                let code = alter_code(&answer);
                let result = answer.responses.into_iter().next().unwrap_or_default();
                (AlterTopicError::unless_done(code, result.error_message), again)
            }
            Err(error) => {
                let again = error.may_have_happened;
                (Err(AlterTopicError::unanswered(error)), again)
            }
        }
    }

    async fn seen(&self, of: (i8, &str), deadline: Instant) -> Result<Seen, DescribeError> {
        let timeout = deadline.saturating_duration_since(time::now());
        let found = self.describe(of.0, vec![of.1.to_owned()], timeout).await?;
        let nothing = || DescribeError::Unclear("it is empty".to_owned());
        Seen::read(found.into_iter().next().ok_or_else(nothing)?)
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
        let of = |resource, is, settings: &[_]| seen(is).is(resource, &wanted(settings));
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
