//! The settings of topics.

use super::*;
use crate::machine::retention::Retention;
use crate::machine::state::State;

fn described(response: &DescribeConfigsResponse, name: &str) -> (String, i8) {
    let configs = response.results[0].configs.iter();
    let found = configs.clone().find(|config| config.name == name).expect("every setting");
    (found.value.clone().expect("a value"), found.config_source)
}

async fn describe(fixture: &Fixture, topic: &str) -> DescribeConfigsResponse {
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: topic.to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: true,
    };
    ask!(fixture, 4, DescribeConfigs, request)
}

async fn change(
    fixture: &Fixture,
    changes: &[(&str, i8, Option<&str>)],
) -> (ErrorCode, Option<String>) {
    let change = |(name, config_operation, value): &(&str, i8, Option<&str>)| {
        let value = value.map(str::to_owned);
        IncrementalAlterableConfig {
            name: (*name).to_owned(),
            config_operation: *config_operation,
            value,
        }
    };
    let resource = IncrementalAlterConfigsResource {
        resource_type: 2,
        resource_name: "t".to_owned(),
        configs: changes.iter().map(change).collect(),
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let mut answer = ask!(fixture, 1, IncrementalAlterConfigs, request);
    let answer = answer.responses.remove(0);
    (answer.error_code, answer.error_message)
}

#[test]
fn settings_are_described_and_changed_one_by_one_or_all_at_once() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let of = async |name: &str| described(&describe(&fixture, "t").await, name);
        assert_eq!(of("retention.ms").await, ("-1".to_owned(), 5));
        let none = (ErrorCode::None, None);
        let done =
            change(&fixture, &[("retention.ms", 0, Some("5000")), ("cleanup.policy", 1, None)]);
        assert_eq!(done.await, none);
        assert_eq!(of("retention.ms").await, ("5000".to_owned(), 1));
        assert_eq!(change(&fixture, &[("retention.bytes", 0, Some("100"))]).await, none);
        assert_eq!(of("retention.ms").await.0, "5000", "the others stay");
        let retention =
            |state: &State| state.topics().by_name("t").map(|topic| topic.keeping.retention);
        let expected = Retention { age_ms: Some(5_000), bytes: Some(100) };
        assert_eq!(fixture.broker.site.read(retention), Some(expected));
        // All at once: what is not named goes back to its default.
        let config =
            AlterableConfig { name: "max.message.bytes".to_owned(), value: Some("900".to_owned()) };
        let resource = AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".to_owned(),
            configs: vec![config],
        };
        let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
        let answer = ask!(&fixture, 2, AlterConfigs, request);
        assert_eq!(answer.responses[0].error_code, ErrorCode::None);
        assert_eq!(of("retention.ms").await, ("-1".to_owned(), 5));
        assert_eq!(of("max.message.bytes").await, ("900".to_owned(), 1));
        assert_eq!(fixture.broker.site.read(retention), Some(Retention::default()));
    });
}

#[test]
fn a_small_site_tells_and_takes_what_it_can_honour() {
    run(async {
        let mut settings = settings(1);
        settings.nodes.truncate(1);
        settings.segment_bytes = 128 << 10;
        let fixture = Fixture::with(settings);
        create(&fixture, "t", 1).await;
        for (name, most, more) in
            [("max.message.bytes", "32768", "32769"), ("min.insync.replicas", "1", "2")]
        {
            let (told, source) = described(&describe(&fixture, "t").await, name);
            assert_eq!((told.as_str(), source), (most, 5));
            let (code, _) = change(&fixture, &[(name, 0, Some(more))]).await;
            assert_eq!(code, ErrorCode::InvalidConfig, "{name}");
            assert_eq!(change(&fixture, &[(name, 0, Some(most))]).await, (ErrorCode::None, None));
            let topic = CreatableTopic {
                name: "u".to_owned(),
                num_partitions: 1,
                replication_factor: -1,
                configs: vec![CreatableTopicConfig {
                    name: name.to_owned(),
                    value: Some(more.to_owned()),
                }],
                ..CreatableTopic::default()
            };
            assert_eq!(create_as(&fixture, topic).await.error_code, ErrorCode::InvalidConfig);
        }
    });
}

#[test]
fn a_change_that_cannot_be_honoured_changes_nothing() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "t", 1).await;
        let before = fixture.group.entries();
        for (bad, why) in [
            (
                &[("retention.ms", 0, Some("5000")), ("cleanup.policy", 0, Some("compact"))][..],
                "not supported",
            ),
            (&[("fulmar.chain.key", 0, Some("x"))], "is not supported"),
            (&[("fulmar.chain.key", 1, None)], "is not supported"),
            (&[("retention.ms", 0, None)], "has no value"),
            (&[("cleanup.policy", 2, Some("delete"))], "set or deleted"),
            (&[("retention.ms", 0, Some("1")), ("retention.ms", 1, None)], "given twice"),
        ] {
            let (code, message) = change(&fixture, bad).await;
            assert_eq!(code, ErrorCode::InvalidConfig, "{bad:?}");
            let message = message.expect("says why");
            assert!(message.contains(why), "{message}");
        }
        assert_eq!(fixture.group.entries(), before);
        let unknown = describe(&fixture, "u").await;
        assert_eq!(unknown.results[0].error_code, ErrorCode::UnknownTopicOrPartition);
    });
}
