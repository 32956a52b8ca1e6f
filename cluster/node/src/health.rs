//! Whether a node can serve, and what is answered over HTTP.
//!
//! Invariant: a node that says that it is ready has recovered its state, knows who leads, and, if that is
//! itself, has proved it a moment ago.

use crate::http::{Answer, Answers};
use crate::metrics;
use crate::node_view::NodeView;
use fulmar_host::time::{self, Duration};
use fulmar_types::Role;
use std::sync::Arc;

/// How long a leader may take to prove that it leads.
const PROOF_TIMEOUT: Duration = Duration::from_secs(1);

/// Entries that may be committed and not applied yet on a node that has caught up. A second of the
/// fastest load is a few hundred.
const BEHIND_ENTRIES_MAX: u64 = 1_000;

/// What there is to ask.
const PATHS: &str = "ask for /metrics, /healthz or /readyz";

/// Whether the node can serve.
///
/// # Errors
/// Why not, in one line.
pub async fn ready(view: &NodeView) -> Result<(), String> {
    let Some(serving) = view.serving() else {
        return Err(
            "the node is starting: it recovers its log, or waits for the other nodes of a new \
                    site"
                .to_owned(),
        );
    };
    let leadership = serving.group.leadership();
    if view.tally().role == Some(Role::Candidate) {
        return Err("no leader of the site is heard of, and the node asks for votes".to_owned());
    }
    let Some(leader) = leadership.leader else {
        return Err("no leader of the site is known".to_owned());
    };
    if !serving.group.hears_leader() {
        return Err(format!("node {leader} led the site, and is not heard of any more: no leader"));
    }
    if leadership.is_me {
        let proof = time::timeout(PROOF_TIMEOUT, serving.group.read_barrier()).await;
        if !matches!(proof, Ok(Ok(_))) {
            let text =
                "the node leads, and cannot prove it: a majority of the site does not answer";
            return Err(text.to_owned());
        }
    }
    if !serving.group.has_caught_up() {
        let text = "the node has not applied yet what it knew before its last start";
        return Err(text.to_owned());
    }
    let index = |at: Option<fulmar_types::LogPosition>| at.map_or(0, |at| at.index.get());
    let behind = index(serving.group.committed()).saturating_sub(index(serving.group.applied()));
    if behind > BEHIND_ENTRIES_MAX {
        return Err(format!("the node is {behind} entries behind node {leader}, which leads"));
    }
    Ok(())
}

async fn answer(view: &NodeView, path: &str) -> Answer {
    match path {
        // Whoever answers lives.
        "/healthz" => Answer::line(200, "alive"),
        "/readyz" => match ready(view).await {
            Ok(()) => Answer::line(200, "ready"),
            Err(why) => Answer::line(503, why),
        },
        "/metrics" => {
            let is_ready = ready(view).await.is_ok();
            Answer::metrics(metrics::tell(view, is_ready))
        }
        "/" => Answer::line(200, PATHS),
        _ => Answer::line(404, format!("there is nothing here: {PATHS}")),
    }
}

/// Answers for a node.
pub fn answers(view: Arc<NodeView>) -> Answers {
    Arc::new(move |path| {
        let view = view.clone();
        Box::pin(async move { answer(&view, &path).await })
    })
}
