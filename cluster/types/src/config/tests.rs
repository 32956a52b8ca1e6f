//! Tests of `config.rs`.

use super::*;

const GOOD: &str = r#"
site = "plant-7"
[[node]]
id = 1
data = "/var/lib/fulmar"
kafka = "127.0.0.1:9092"
peer = "127.0.0.1:9192"
"#;

#[test]
fn the_smallest_configuration_has_all_defaults() {
    let config = Config::parse(GOOD).expect("good");
    assert_eq!(config.consensus.heartbeat().as_millis(), 100);
    assert_eq!(config.log.segment_bytes, HumanSize(64 << 20));
    let text = toml::to_string(&config).expect("prints");
    assert_eq!(Config::parse(&text), Ok(config));
}

#[test]
fn the_documentation_names_every_key_with_its_default() {
    let text = include_str!("../../../../docs/CONFIGURATION.md");
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let config = Config::parse(example.expect("an example")).expect("good");
    assert_eq!(config.nodes.len(), 3);
    let slow = ConsensusConfig { profile: Profile::SlowDisk, ..config.consensus.clone() };
    let consensus = |key: fn(&ConsensusConfig) -> HumanDuration| {
        format!("`{}` (`{}`)", key(&config.consensus), key(&slow))
    };
    let (log, kafka) = (&config.log, &config.kafka);
    let rows = [
        ("consensus.heartbeat", consensus(ConsensusConfig::heartbeat)),
        ("consensus.election_timeout_min", consensus(ConsensusConfig::election_timeout_min)),
        ("consensus.election_timeout_max", consensus(ConsensusConfig::election_timeout_max)),
        ("log.segment_bytes", format!("`{}`", log.segment_bytes)),
        ("log.spare_segments", format!("`{}`", log.spare_segments)),
        ("log.reserve_bytes", format!("`{}`", log.reserve_bytes)),
        ("log.purge_lag_segments", format!("`{}`", log.purge_lag_segments)),
        ("kafka.auto_create_topics", format!("`{}`", kafka.auto_create_topics)),
        ("kafka.default_partitions", format!("`{}`", kafka.default_partitions)),
        ("kafka.producer_expiry", format!("`{}`", kafka.producer_expiry)),
        ("kafka.request_timeout_max", format!("`{}`", kafka.request_timeout_max)),
        ("pipelines.memory_bytes", format!("`{}`", config.pipelines.memory_bytes)),
        ("pipelines.subtasks", format!("`{}`", config.pipelines.subtasks)),
    ];
    for (key, default) in rows {
        let row = format!("| `{key}` | {default} |");
        assert!(text.contains(&row), "{row}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_line_and_column() {
    let error = Config::parse(&format!("{GOOD}kafak = 1\n")).expect_err("unknown key");
    assert!(error.to_string().contains("line 8, column 1"), "{error}");
    assert!(error.to_string().contains("kafak"), "{error}");
}

#[test]
fn values_that_do_not_fit_together_are_refused() {
    let with = |extra: &str| Config::parse(&format!("{GOOD}{extra}")).expect_err("invalid");
    let error = with("[consensus]\nheartbeat = \"200ms\"\n");
    assert_eq!(
        error.to_string(),
        "consensus.election_timeout_min: 300ms must be at least twice the heartbeat of 200ms"
    );
    assert!(with("[log]\nsegment_bytes = \"5MB\"\n").to_string().contains("is no unit"));
    assert!(with("[log]\nsegment_bytes = \"1KiB\"\n").to_string().contains("segment_bytes"));
    let twice = GOOD.replace("9192", "9092");
    assert!(Config::parse(&twice).expect_err("twice").to_string().contains("used twice"));
    for (extra, key) in [
        ("[kafka]\nproducer_expiry = \"0s\"", "kafka.producer_expiry"),
        ("[kafka]\nrequest_timeout_max = \"0ms\"", "kafka.request_timeout_max"),
        ("[kafka]\nrequest_timeout_max = \"2h\"", "kafka.request_timeout_max"),
        ("[consensus]\nheartbeat = \"0s\"", "consensus.heartbeat"),
        ("[consensus]\nelection_timeout_max = \"1h\"", "consensus.election_timeout_max"),
    ] {
        let error = with(extra).to_string();
        assert!(error.starts_with(key), "{extra}: {error}");
    }
}

#[test]
fn what_others_connect_to_is_an_address_that_they_can_connect_to() {
    let every = GOOD.replace("127.0.0.1:9092", "0.0.0.0:9092");
    let error = Config::parse(&every).expect_err("nobody can connect to that");
    assert!(error.to_string().contains("`advertised = \"host:9092\"`"), "{error}");
    let error = Config::parse(&GOOD.replace("127.0.0.1:9192", "[::]:9192"));
    assert!(error.expect_err("refused").to_string().starts_with("node.peer: [::]:9192"));

    let told = |advertised: &str| {
        let config = Config::parse(&format!("{every}advertised = \"{advertised}\"\n"))?;
        config.nodes[0].client_address()
    };
    assert_eq!(told("plant.example:19092"), Ok(("plant.example".to_owned(), 19092)));
    assert_eq!(told("[fd00::1]:19092"), Ok(("fd00::1".to_owned(), 19092)));
    for bad in
        ["plant", ":1", "plant:x", "plant:0", "fd00::1:9092", "0.0.0.0:9092", "tcp://a:1", "a b:1"]
    {
        let error = told(bad).expect_err(bad).to_string();
        assert!(error.starts_with(&format!("node.advertised: `{bad}`")), "{error}");
    }
}
