//! What people read when a scenario file is refused: one snapshot for every kind of mistake.

use fulmar_sim::scenario::Scenario;

const HEAD: &str =
    "title = \"a title\"\nwhy = \"a reason\"\nclass = \"smoke\"\nsites = { north = 3 }\n";

fn refused(text: &str) -> String {
    match Scenario::parse("scenarios/fast/bad.toml", text) {
        Ok(_) => panic!("this was accepted:\n{text}"),
        Err(error) => error.to_string(),
    }
}

fn refused_after_head(text: &str) -> String {
    refused(&format!("{HEAD}{text}"))
}

macro_rules! refused {
    ($($name:ident: $text:expr;)*) => {
        $(#[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), refused_after_head($text));
        })*
    };
}

refused! {
    not_toml: "net = { latency = }\n";
    unknown_key: "tittle = \"again\"\n";
    unknown_kind_near:
        "fault = [{ kind = \"crsh\", target = \"leader of north\", at = \"5s\", down = \"1s\" }]\n";
    unknown_kind_far: "check = [{ kind = \"mirror_is_prefix\", from = \"north\" }]\n";
    no_kind: "[[fault]]\ntarget = \"leader of north\"\n";
    misspelt_parameter:
        "fault = [{ kind = \"crash\", targett = \"leader of north\", at = \"5s\", down = \"1s\" }]\n";
    missing_parameter: "fault = [{ kind = \"crash\", target = \"leader of north\", at = \"5s\" }]\n";
    duration_without_unit: "run = { warmup = \"5\" }\n";
    duration_as_number: "run = { warmup = 5 }\n";
    range_backwards: "net = { latency = \"30ms..1ms\" }\n";
    probability_too_large: "disk = { torn_tail = 1.5 }\n";
    unknown_site:
        "fault = [{ kind = \"pause\", target = \"leader of nroth\", at = \"5s\", for = \"1s\" }]\n";
    unknown_role:
        "fault = [{ kind = \"pause\", target = \"boss of north\", at = \"5s\", for = \"1s\" }]\n";
    node_out_of_range:
        "fault = [{ kind = \"pause\", target = \"node 4 of north\", at = \"5s\", for = \"1s\" }]\n";
    never_fires: "fault = [{ kind = \"pause\", target = \"any\", for = \"1s\" }]\n";
    fires_twice:
        "fault = [{ kind = \"pause\", target = \"any\", at = \"1s\", every = \"5s\", for = \"1s\" }]\n";
    fires_after_the_end:
        "fault = [{ kind = \"pause\", target = \"any\", at = \"61s\", for = \"1s\" }]\n";
    fires_too_often:
        "fault = [{ kind = \"pause\", target = \"any\", every = \"1ms\", for = \"1s\" }]\n";
    unknown_event:
        "fault = [{ kind = \"reset\", between = [\"any\", \"any\"], after = { events = 3, of = \"ackd\" } }]\n";
    same_ends:
        "fault = [{ kind = \"reset\", between = [\"leader of north\", \"leader of north\"], at = \"1s\" }]\n";
    does_nothing:
        "fault = [{ kind = \"slow_disk\", target = \"any\", at = \"1s\", by = \"0ms..0ms\", for = \"1s\" }]\n";
    lasts_no_time:
        "fault = [{ kind = \"pause\", target = \"any\", at = \"1s\", for = \"0s\" }]\n";
    unknown_configuration_key: "config.log.segmnt_bytes = \"1MiB\"\n";
    configuration_that_no_node_takes:
        "config.log.segment_bytes = \"1MiB\"\nconfig.consensus.heartbeat = \"2s\"\n";
    unknown_probe: "must_hit = [\"torn tail cutt\"]\n";
    no_such_link:
        "net.link = [{ from = \"node 1 of north\", to = \"site north\", latency = \"5ms\" }]\n";
    topic_without_producer:
        "workload = [{ kind = \"read\", site = \"north\", topic = \"orders\", rate = \"5/s\" }]\n";
    partitions_disagree: "[[workload]]\nkind = \"produce_keyed\"\nsite = \"north\"\ntopic = \"a\"\n\
        rate = \"5/s\"\n[[workload]]\nkind = \"produce_keyed\"\nsite = \"north\"\ntopic = \"a\"\n\
        rate = \"5/s\"\npartitions = 2\n";
    reads_a_renewed_topic: "[[workload]]\nkind = \"produce_keyed\"\nsite = \"north\"\ntopic = \"a\"\n\
        rate = \"5/s\"\nrenew = \"3s\"\n[[workload]]\nkind = \"read\"\nsite = \"north\"\ntopic = \"a\"\n\
        rate = \"5/s\"\n";
    renews_a_shared_topic: "[[workload]]\nkind = \"produce_keyed\"\nsite = \"north\"\ntopic = \"a\"\n\
        rate = \"5/s\"\nrenew = \"3s\"\n[[workload]]\nkind = \"produce_keyed\"\nsite = \"north\"\ntopic = \"a\"\n\
        rate = \"5/s\"\n";
    renews_too_often: "workload = [{ kind = \"produce_keyed\", site = \"north\", topic = \"a\", \
        rate = \"5/s\", renew = \"10ms..3s\" }]\n";
    changes_a_limit_for_too_long: "workload = [{ kind = \"produce_keyed\", site = \"north\", topic = \"a\", \
        rate = \"5/s\", retention = \"4s\", retention_from = \"5s\", retention_for = \"1s..20s\" }]\n";
    too_many_clients: "workload = [{ kind = \"produce_keyed\", site = \"north\", topic = \"a\", \
        rate = \"5/s\", clients = 100000 }]\n";
    bad_range_in_config: "config.consensus.heartbeat = \"100..200ms\"\n";
    wrong_type: "fault = { kind = \"crash\" }\n";
}

#[test]
fn no_sites() {
    insta::assert_snapshot!("no_sites", refused("title = \"t\"\nwhy = \"w\"\n"));
}

#[test]
fn no_why() {
    insta::assert_snapshot!("no_why", refused("title = \"t\"\nsites.north = 3\n"));
}

const WORKLOAD: &str = "workload = [{ kind = \"produce_keyed\", site = \"north\", topic = \"a\", rate = \"100/s\" }]\n";
const FAULT: &str =
    "fault = [{ kind = \"crash\", target = \"any\", every = \"2s..8s\", down = \"1s\" }]\n";

fn chaos(run: &str, workload: &str, fault: &str) -> String {
    let head = HEAD.replace("class = \"smoke\"\n", "");
    refused(&format!("{head}run = {{ chaos = \"{run}\" }}\n{workload}{fault}"))
}

#[test]
fn chaos_too_short() {
    insta::assert_snapshot!("chaos_too_short", chaos("30s", WORKLOAD, FAULT));
}

#[test]
fn chaos_with_too_few_faults() {
    let fault = "fault = [\n  { kind = \"crash\", target = \"any\", every = \"10s..40s\", down = \"1s\" },\n  \
        { kind = \"pause\", target = \"any\", every = \"10s\", for = \"1s\", chance = 0.5 },\n]\n";
    insta::assert_snapshot!("chaos_with_too_few_faults", chaos("60s", WORKLOAD, fault));
}

#[test]
fn chaos_with_too_few_records() {
    let workload = WORKLOAD.replace("100/s", "10/s..500/s");
    insta::assert_snapshot!("chaos_with_too_few_records", chaos("60s", &workload, FAULT));
}

#[test]
fn a_site_has_as_many_nodes_as_a_configuration_takes() {
    let head = HEAD.replace("north = 3", "north = 2");
    insta::assert_snapshot!(refused(&head));
}
