//! Links and rules, which come in and are told as things with settings.

use super::*;
use fulmar_host::time;
use fulmar_wire::{
    RESOURCE_CHANGES, RESOURCE_LINK, RESOURCE_LINK_STATUS, RESOURCE_RULE, RESOURCE_TOPIC,
};

pub(super) async fn replace(
    fixture: &Fixture,
    (resource_type, name): (i8, &str),
    settings: &[(&str, &str)],
) -> (ErrorCode, Option<String>) {
    replace_all(fixture, &[((resource_type, name), settings)]).await.remove(0)
}

type Settings<'a> = &'a [(&'a str, &'a str)];

async fn replace_all(
    fixture: &Fixture,
    wanted: &[((i8, &str), Settings<'_>)],
) -> Vec<(ErrorCode, Option<String>)> {
    let setting = |(name, value): &(&str, &str)| AlterableConfig {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
    };
    let resource = |((resource_type, name), settings): &((i8, &str), Settings<'_>)| {
        let (resource_type, resource_name) = (*resource_type, (*name).to_owned());
        let configs = settings.iter().map(setting).collect();
        AlterConfigsResource { resource_type, resource_name, configs }
    };
    let resources = wanted.iter().map(resource).collect();
    let request = AlterConfigsRequest { resources, validate_only: false };
    let answers = ask!(fixture, 2, AlterConfigs, request).responses.into_iter();
    answers.map(|answer| (answer.error_code, answer.error_message)).collect()
}

pub(super) async fn told(
    fixture: &Fixture,
    resource_type: i8,
    names: &[&str],
) -> DescribeConfigsResponse {
    let resource = |name: &&str| DescribeConfigsResource {
        resource_type,
        resource_name: (*name).to_owned(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: names.iter().map(resource).collect(),
        include_synonyms: false,
        include_documentation: false,
    };
    ask!(fixture, 4, DescribeConfigs, request)
}

pub(super) fn settings(response: &DescribeConfigsResponse) -> Vec<(String, String)> {
    let configs = response.results[0].configs.iter();
    configs.map(|config| (config.name.clone(), config.value.clone().unwrap_or_default())).collect()
}

pub(super) const NONE: (ErrorCode, Option<String>) = (ErrorCode::None, None);

#[test]
fn a_budget_holds_producers_back_or_leaves_a_gap_that_is_passed_over() {
    run(async {
        let fixture = Fixture::new();
        let hub = [("site", "hub"), ("region", "eu")];
        assert_eq!(replace(&fixture, (RESOURCE_LINK, "hub"), &hub).await, NONE);
        assert_eq!(replace(&fixture, (RESOURCE_RULE, "t"), &[("regions", "eu")]).await, NONE);
        create(&fixture, "t", 1).await;
        let policy = |policy| [("retention.bytes", "300"), ("fulmar.budget.policy", policy)];
        assert_eq!(replace(&fixture, (RESOURCE_TOPIC, "t"), &policy("block")).await, NONE);
        let mut next = 0;
        let held_back = loop {
            match produce(&fixture, batch(None, 1, 0)).await {
                (ErrorCode::None, offset) => next = offset + 1,
                (code, _) => break code,
            }
        };
        assert_eq!(held_back, ErrorCode::KafkaStorageError);
        assert!(next > 1);
        let answer = ask!(&fixture, 9, Produce, produce_request(-1, batch(None, 1, 0)));
        let message = answer.responses[0].partition_responses[0].error_message.clone();
        assert!(message.is_some_and(|text| text.contains("budget")));

        assert_eq!(replace(&fixture, (RESOURCE_TOPIC, "t"), &policy("keep-oldest")).await, NONE);
        assert_eq!(produce(&fixture, batch(None, 3, 0)).await, (ErrorCode::None, next));
        let data = fetch(&fixture, next + 1).await;
        assert_eq!(data.high_watermark, next + 3);
        let got = Batch::parse(records(&data)).expect("a batch without records");
        assert_eq!(got.header().offsets(), next + 1..=next + 2);
        assert_eq!(got.header().record_count, 0);

        let status = settings(&told(&fixture, RESOURCE_LINK_STATUS, &["hub"]).await);
        let gap = status.iter().find(|(name, _)| name.starts_with("gap/t/0/")).expect("a gap");
        assert_eq!(gap.0, format!("gap/t/0/{next}"));
        assert!(gap.1.starts_with(&format!("{} ", next + 3)) && gap.1.ends_with(" budget"));
        assert_eq!(gap.1.split(' ').nth(2), Some("3"), "{}", gap.1);
    });
}

#[test]
fn links_and_rules_of_one_request_change_together_or_none_does() {
    run(async {
        let fixture = Fixture::new();
        let (hub, far) = ((RESOURCE_LINK, "hub"), (RESOURCE_LINK, "far"));
        let (orders, alarms) = ((RESOURCE_RULE, "orders"), (RESOURCE_RULE, "alarms"));
        let to: fn(&'static str) -> [(&'static str, &'static str); 2] =
            |site| [("site", site), ("region", "eu")];
        let (to_hub, to_far) = (to("hub"), to("far"));
        let eu: Settings<'_> = &[("regions", "eu")];
        let all = [(hub, &to_hub[..]), (orders, eu), (far, &to_far[..])];
        assert_eq!(replace_all(&fixture, &all).await, [NONE, NONE, NONE]);
        let number = async |(resource_type, name): (i8, &str)| {
            let told = settings(&told(&fixture, resource_type, &[name]).await);
            told.into_iter().find(|(name, _)| name == "number").expect("it has one").1
        };
        let numbers = [number(hub).await, number(orders).await, number(far).await];
        let as_numbers = numbers.clone().map(|number| number.parse::<u64>().expect("a number"));
        assert!(as_numbers.is_sorted() && as_numbers[0] < as_numbers[1], "{numbers:?}");
        assert!(as_numbers[1] < as_numbers[2], "each has one of its own");

        let others = |answers: Vec<(ErrorCode, Option<String>)>, code: ErrorCode, words: &str| {
            assert_eq!(answers.len(), 2);
            for (of, text) in answers {
                let text = text.expect("it says why");
                assert_eq!(of, code, "{text}");
                assert!(text.contains(words) && text.ends_with("none of the 2 changes was made"));
            }
        };
        let stale: Settings<'_> = &[("regions", "us"), ("number", "1000")];
        let answers = replace_all(&fixture, &[(alarms, eu), (orders, stale)]).await;
        others(answers, ErrorCode::InvalidRequest, "changed");
        let unread: Settings<'_> = &[("regional", "us")];
        let answers = replace_all(&fixture, &[(alarms, eu), (orders, unread)]).await;
        others(answers, ErrorCode::InvalidConfig, "regional");
        let answers = replace_all(&fixture, &[(alarms, eu), (alarms, eu)]).await;
        others(answers, ErrorCode::InvalidRequest, "alarms more than once");
        let none = told(&fixture, RESOURCE_RULE, &["alarms"]).await.results.remove(0);
        assert_eq!(none.error_code, ErrorCode::ResourceNotFound);
        assert_eq!(number(orders).await, numbers[1]);

        // A link gives way to another one to the same site.
        let gone: Settings<'_> = &[("number", &numbers[0])];
        let answers = replace_all(&fixture, &[(hub, gone), ((RESOURCE_LINK, "b"), &to_hub)]).await;
        assert_eq!(answers, [NONE, NONE]);
        let changes = settings(&told(&fixture, RESOURCE_CHANGES, &[""]).await);
        let of: Vec<&str> =
            changes.iter().map(|(_, value)| value.split('\t').nth(1).expect("a name")).collect();
        assert_eq!(of, ["hub", "orders", "far", "hub", "b"]);
    });
}

#[test]
fn more_rules_come_at_once_than_changes_are_remembered() {
    run(async {
        let fixture = Fixture::new();
        let names: Vec<String> = (0..600).map(|number| format!("topic-{number}")).collect();
        let number: Settings<'_> = &[("regions", "eu"), ("number", "0")];
        let wanted: Vec<_> = names.iter().map(|name| ((RESOURCE_RULE, &**name), number)).collect();
        let answers = replace_all(&fixture, &wanted).await;
        assert!(answers.iter().all(|answer| *answer == NONE), "{:?}", answers[0]);
        let changes = settings(&told(&fixture, RESOURCE_CHANGES, &[""]).await);
        assert_eq!(changes.len(), 512);
        let again = replace_all(&fixture, &wanted[..1]).await;
        assert_eq!(again[0].0, ErrorCode::InvalidRequest, "that is no state that it is in");
    });
}

#[test]
fn a_link_is_set_told_and_removed() {
    run(async {
        let fixture = Fixture::new();
        let hub = (RESOURCE_LINK, "hub");
        let wanted = [("site", "hub"), ("region", "eu"), ("dial", "a:1,b:2"), ("take", "orders")];
        assert_eq!(replace(&fixture, hub, &wanted).await, NONE);
        let there = settings(&told(&fixture, RESOURCE_LINK, &["hub"]).await);
        for (name, value) in wanted {
            assert!(there.contains(&(name.to_owned(), value.to_owned())), "{name} in {there:?}");
        }
        assert!(there.contains(&("changed-by".to_owned(), "anonymous at 10.0.0.7".to_owned())));
        let changes = settings(&told(&fixture, RESOURCE_CHANGES, &[""]).await);
        assert_eq!(changes.len(), 1);
        assert!(changes[0].1.starts_with("link\thub\t"), "{changes:?}");
        assert!(
            changes[0].1.ends_with("partitions-max 4096; retention-bytes-max none"),
            "{changes:?}"
        );
        let (code, text) = replace(&fixture, hub, &[("sight", "hub")]).await;
        assert_eq!(
            (code, text.as_deref()),
            (ErrorCode::InvalidConfig, Some("a link has no setting `sight`"))
        );
        let all = told(&fixture, RESOURCE_LINK, &[""]).await;
        let names: Vec<_> = all.results.iter().map(|result| &*result.resource_name).collect();
        assert_eq!(names, ["hub"]);
        let stale = [("site", "hub"), ("number", "99")];
        let (code, text) = replace(&fixture, hub, &stale).await;
        assert_eq!(code, ErrorCode::InvalidRequest);
        assert!(text.is_some_and(|text| text.contains("changed meanwhile")));
        let (code, text) =
            replace(&fixture, (RESOURCE_LINK, "self"), &[("site", "site"), ("region", "eu")]).await;
        assert_eq!(code, ErrorCode::InvalidConfig);
        assert!(text.is_some_and(|text| text.contains("`site` is this very site")));
        let (code, _) = replace(&fixture, (RESOURCE_LINK, "again"), &wanted).await;
        assert_eq!(code, ErrorCode::InvalidRequest, "two links to one site");
        assert_eq!(replace(&fixture, hub, &[]).await, NONE);
        let gone = told(&fixture, RESOURCE_LINK, &["hub"]).await;
        assert_eq!(gone.results[0].error_code, ErrorCode::ResourceNotFound);
    });
}

#[test]
fn a_rule_is_set_told_and_taken_back() {
    run(async {
        let fixture = Fixture::new();
        let orders = (RESOURCE_RULE, "orders");
        let may_go = || fixture.broker.site.read(|state| state.rule_to("orders", "eu").is_some());
        assert!(!may_go());
        assert_eq!(replace(&fixture, orders, &[("regions", "us, eu")]).await, NONE);
        assert!(may_go());
        let there = settings(&told(&fixture, RESOURCE_RULE, &["orders"]).await);
        assert_eq!(there[0], ("regions".to_owned(), "us,eu".to_owned()));
        let (code, _) = replace(&fixture, orders, &[("region", "eu")]).await;
        assert_eq!(code, ErrorCode::InvalidConfig);
        let none = told(&fixture, RESOURCE_RULE, &["invoices"]).await.results.remove(0);
        assert_eq!(none.error_code, ErrorCode::ResourceNotFound);
        let number = none.configs[0].value.clone().expect("what is not there has a number too");
        assert_eq!(none.configs[0].name, "number");
        assert_eq!(replace(&fixture, orders, &[]).await, NONE);
        assert!(!may_go());
        let late = [("regions", "eu"), ("number", &*number)];
        assert_eq!(replace(&fixture, orders, &late).await.0, ErrorCode::InvalidRequest);
        assert!(!may_go());
        let invoices = (RESOURCE_RULE, "invoices");
        assert_eq!(replace(&fixture, invoices, &late).await, NONE);
    });
}

#[test]
fn the_leader_tells_what_becomes_of_a_link() {
    run(async {
        let fixture = Fixture::new();
        create(&fixture, "orders", 1).await;
        create(&fixture, "secret", 1).await;
        let wanted = [("site", "hub"), ("region", "eu")];
        assert_eq!(replace(&fixture, (RESOURCE_LINK, "hub"), &wanted).await, NONE);
        assert_eq!(replace(&fixture, (RESOURCE_RULE, "orders"), &[("regions", "eu")]).await, NONE);
        fixture.broker.links().note("hub", |link| {
            link.sent.add(7, time::now());
            link.trouble = Some(("lost".to_owned(), time::now()));
        });
        let status = settings(&told(&fixture, RESOURCE_LINK_STATUS, &["hub"]).await);
        let has = |name: &str, value: &str| {
            assert!(status.contains(&(name.to_owned(), value.to_owned())), "{name} in {status:?}");
        };
        has("state", "down");
        has("trouble", "lost");
        has("sent-bytes", "7");
        has("sends/orders/0", "0 - - 0 0");
        has("withheld/secret", "");
        assert!(
            !status.iter().any(|(name, _)| name.contains("sends/secret")),
            "no rule lets it go"
        );
        let none = told(&fixture, RESOURCE_LINK_STATUS, &["other"]).await;
        assert_eq!(none.results[0].error_code, ErrorCode::ResourceNotFound);
    });
}

#[test]
fn a_request_cannot_ask_for_links_without_end() {
    run(async {
        let fixture = Fixture::new();
        let answer = told(&fixture, RESOURCE_LINK, &["hub"; 9]).await;
        let code = |at: usize| answer.results[at].error_code;
        assert_eq!((code(7), code(8)), (ErrorCode::ResourceNotFound, ErrorCode::InvalidRequest));
    });
}
