//! Dead letters of a pipeline are put through again.
//!
//! Invariant: what lies in the topics at the moment of the request, and was not put through before, is what the
//! request is about; what fails again is there for the next one.

use super::super::Stop;
use super::super::client::Reaching;
use super::super::output::{count, grouped, say};
use super::deploy::{LOOK_EVERY, refused};
use super::{CLIENT, TIMEOUT, pipeline, status};
use clap::Args;
use fulmar_client::PipelineStatus;
use fulmar_flow::Letters;
use fulmar_host::time::{self, Duration};
use fulmar_pipelines::facts::Facts;
use fulmar_types::ExitCode;

/// How long it is waited for what has become of them.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Args)]
pub struct Retry {
    /// The pipeline.
    #[arg(value_name = "NAME")]
    name: String,
    /// The topic with dead letters; all that the file names for them, if it is left out.
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    #[command(flatten)]
    reaching: Reaching,
}

fn letters(status: &PipelineStatus) -> Letters {
    Facts::decode(&status.facts).unwrap_or_default().letters
}

/// What has become of dead letters since then.
fn since(before: Letters, now: Letters) -> Letters {
    Letters {
        retried: now.retried.saturating_sub(before.retried),
        cut: now.cut.saturating_sub(before.cut),
        no_letters: now.no_letters.saturating_sub(before.no_letters),
        of_others: now.of_others.saturating_sub(before.of_others),
        no_stream: now.no_stream.saturating_sub(before.no_stream),
    }
}

/// What has become of dead letters, for people.
pub fn told(letters: Letters) -> String {
    let Letters { retried, cut, no_letters, of_others, no_stream } = letters;
    let mut text = format!("{} put through again", grouped(retried));
    let others = [
        (cut, "cut"),
        (no_letters, "no dead letters"),
        (of_others, "of other pipelines"),
        (no_stream, "of streams or queries that the file does not have"),
    ];
    for (number, what) in others.into_iter().filter(|(number, _)| *number > 0) {
        text += &format!(", {} {what}", grouped(number));
    }
    text
}

/// How many are still to be looked at.
pub fn to_go(status: &PipelineStatus) -> u64 {
    status.letters.values().map(|(next, until)| until.saturating_sub(*next)).sum()
}

/// Puts dead letters through again, and says what became of them.
pub async fn retry(asked: Retry) -> Result<ExitCode, Stop> {
    let Retry { name, mut topic, reaching } = asked;
    let cluster = reaching.reached(CLIENT).await?;
    let known = pipeline(&cluster, &name).await?;
    if topic.is_empty() {
        let plan = fulmar_flow::plan(&known.is.file);
        let named = plan.iter().flat_map(|plan| plan.dead_letters());
        topic = named.map(str::to_owned).collect();
    }
    if topic.is_empty() {
        return Err(Stop::usage(format!(
            "the file of pipeline {name} sends no bad records anywhere; --topic names a topic that has some."
        )));
    }
    let before = letters(&status::of(&cluster, &name).await?);
    let set = cluster.retry_letters(&name, &topic, TIMEOUT).await;
    set.map_err(|error| refused(&format!("pipeline {name}"), &error))?;
    let deadline = time::now() + PATIENCE;
    loop {
        let status = status::of(&cluster, &name).await?;
        let left = to_go(&status);
        if left == 0 {
            let what = told(since(before, letters(&status)));
            say(format!("pipeline {name}: {what}"));
            return Ok(ExitCode::Ok);
        }
        let left = count(left, "record");
        if let Some(why) = status.failed {
            return Err(Stop::failed(format!(
                "pipeline {name} cannot go on, with {left} to look at: {why}."
            )));
        }
        if known.is.paused || time::now() >= deadline {
            let why = if known.is.paused { "it is paused" } else { "it takes its time" };
            say(format!("pipeline {name}: {left} are looked at as it goes on; {why}"));
            return Ok(ExitCode::Ok);
        }
        time::sleep(LOOK_EVERY).await;
    }
}
