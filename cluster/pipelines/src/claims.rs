//! Who is to run which pipeline: what the leader of the site decides, from what it sees.
//!
//! What moves again and again without coming any further moves for no good: whoever has it is kept from answering
//! by the pipeline itself, or by whatever is there with it, and each owner begins anew. So with each move the next one
//! takes longer, until an epoch has ended.
//!
//! Invariant: a decision names the fence that it has seen, so it takes effect only if nobody has decided
//! otherwise meanwhile.

use fulmar_types::NodeId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A node that was not heard for so long is taken for gone.
const SILENT: Duration = Duration::from_millis(700);

/// The same, if nothing was heard of it since this node leads: whoever lives answers what a leader sends at
/// once.
const UNHEARD: Duration = Duration::from_millis(200);

/// A node that lacks more entries than this is not given a pipeline.
const BEHIND_MAX: u64 = 2_000;

/// So much further behind, for [`SLOW`], and what it has is given to another.
const BEHIND_FAR: u64 = 10_000;

/// See [`BEHIND_FAR`].
const SLOW: Duration = Duration::from_secs(3);

/// A pipeline moves if nodes have differed by two or more for so long.
const UNEVEN: Duration = Duration::from_secs(10);

/// So often the time doubles for which an owner may be silent or far behind.
const DOUBLED_MAX: u32 = 4;

/// Who has had a pipeline for so long is no stage on the way from one node to the next.
const SETTLED: Duration = Duration::from_secs(120);

/// How often pipelines have moved without an epoch in between. Every node takes note of it, so that whoever leads next
/// knows it too.
#[derive(Clone, Debug, Default)]
pub struct Moves(BTreeMap<String, Moved>);

/// What is known of a pipeline.
#[derive(Clone, Debug)]
struct Moved {
    fence: u64,
    epoch: u64,
    /// When the fence was first seen.
    at: Instant,
    moves: u32,
}

impl Moves {
    /// What the state says now: name, fence and last epoch of each.
    pub fn look<'a>(&mut self, now: Instant, all: impl Iterator<Item = (&'a str, u64, u64)>) {
        let mut before = std::mem::take(&mut self.0);
        for (name, fence, epoch) in all {
            let first = Moved { fence, epoch, at: now, moves: 0 };
            let mut known = before.remove(name).unwrap_or_else(|| first.clone());
            if known.epoch != epoch {
                known = first;
            } else if known.fence != fence {
                let is_settled = now.duration_since(known.at) >= SETTLED;
                let moves = if is_settled { 0 } else { known.moves.saturating_add(1) };
                known = Moved { moves, ..first };
            }
            self.0.insert(name.to_owned(), known);
        }
    }

    /// How often it has.
    pub fn of(&self, name: &str) -> u32 {
        self.0.get(name).map_or(0, |known| known.moves)
    }
}

/// A node as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which one.
    pub node: NodeId,
    /// For how long nothing was heard of it; `None` if nothing was heard since this node leads.
    pub silent_for: Option<Duration>,
    /// How many entries it lacks, if that is known.
    pub behind: Option<u64>,
}

/// A pipeline that somebody has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its fence.
    pub fence: u64,
    /// Who runs it.
    pub owner: Option<NodeId>,
    /// How often it has moved without coming any further.
    pub moves: u32,
}

/// Somebody is to run a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The pipeline.
    pub name: String,
    /// The fence that stands.
    pub fence: u64,
    /// Who.
    pub node: NodeId,
}

/// What a leader keeps in mind.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Since when this node leads.
    since: Instant,
    /// Since when a node is far behind.
    slow: BTreeMap<NodeId, Instant>,
    /// Since when nodes differ.
    uneven: Option<Instant>,
}

impl Claims {
    /// Of a node that leads from now on.
    pub fn new(now: Instant) -> Self {
        Self { since: now, slow: BTreeMap::new(), uneven: None }
    }

    /// Whether it is there, as far as a pipeline is concerned that has moved so often.
    fn is_alive(&self, seen: &Seen, now: Instant, moves: u32) -> bool {
        match seen.silent_for {
            Some(silent_for) => silent_for < patient(SILENT, moves),
            None => now.duration_since(self.since) < patient(UNHEARD, moves),
        }
    }

    fn note_slow(&mut self, seen: &[Seen], now: Instant) {
        let is_far = |seen: &&Seen| seen.behind.is_some_and(|behind| behind > BEHIND_FAR);
        let far: Vec<NodeId> = seen.iter().filter(is_far).map(|seen| seen.node).collect();
        self.slow.retain(|node, _| far.contains(node));
        for node in far {
            self.slow.entry(node).or_insert(now);
        }
    }

    /// What is to be proposed.
    pub fn decide(&mut self, now: Instant, seen: &[Seen], wanted: &[Wanted]) -> Vec<Claim> {
        self.note_slow(seen, now);
        let is_slow = |node: NodeId, moves: u32| {
            let since = self.slow.get(&node);
            since.is_some_and(|since| now.duration_since(*since) >= patient(SLOW, moves))
        };
        let stays = |node: NodeId, moves: u32| {
            let seen = seen.iter().find(|seen| seen.node == node);
            seen.is_some_and(|seen| self.is_alive(seen, now, moves)) && !is_slow(node, moves)
        };
        let can_take = |seen: &&Seen| {
            stays(seen.node, 0) && seen.behind.is_some_and(|behind| behind <= BEHIND_MAX)
        };
        let mut counts: BTreeMap<NodeId, usize> =
            seen.iter().filter(can_take).map(|seen| (seen.node, 0)).collect();
        for owner in wanted.iter().filter_map(|wanted| wanted.owner) {
            counts.entry(owner).and_modify(|count| *count += 1);
        }
        let mut claims = Vec::new();
        for wanted in wanted {
            if wanted.owner.is_some_and(|owner| stays(owner, wanted.moves)) {
                continue;
            }
            let fewest = counts.iter().min_by_key(|(node, count)| (**count, **node));
            let Some((node, _)) = fewest.map(|(node, count)| (*node, *count)) else { break };
            counts.entry(node).and_modify(|count| *count += 1);
            claims.push(Claim { name: wanted.name.clone(), fence: wanted.fence, node });
        }
        if claims.is_empty() {
            claims.extend(self.balance(now, &counts, wanted));
        } else {
            self.uneven = None;
        }
        claims
    }

    /// Moves one pipeline if nodes have differed for long.
    fn balance(
        &mut self,
        now: Instant,
        counts: &BTreeMap<NodeId, usize>,
        wanted: &[Wanted],
    ) -> Option<Claim> {
        let (least, few) = counts.iter().min_by_key(|(node, count)| (**count, **node))?;
        let (most, many) = counts.iter().max_by_key(|(node, count)| (**count, **node))?;
        if many - few < 2 {
            self.uneven = None;
            return None;
        }
        let since = *self.uneven.get_or_insert(now);
        if now.duration_since(since) < UNEVEN {
            return None;
        }
        self.uneven = None;
        let moved = wanted.iter().find(|wanted| wanted.owner == Some(*most))?;
        Some(Claim { name: moved.name.clone(), fence: moved.fence, node: *least })
    }
}

/// A time that is longer for a pipeline that has moved so often. The first move says nothing: nodes do end.
fn patient(time: Duration, moves: u32) -> Duration {
    time * (1 << moves.saturating_sub(1).min(DOUBLED_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(node: u64, silent_ms: u64) -> Seen {
        let silent_for = Some(Duration::from_millis(silent_ms));
        Seen { node: NodeId(node), silent_for, behind: Some(0) }
    }

    fn wanted(name: &str, owner: u64) -> Wanted {
        let owner = Some(NodeId(owner)).filter(|node| node.get() > 0);
        Wanted { name: name.to_owned(), fence: 5, owner, moves: 0 }
    }

    fn told(claims: Vec<Claim>) -> Vec<(String, u64)> {
        claims.into_iter().map(|claim| (claim.name, claim.node.get())).collect()
    }

    fn of(name: &str, node: u64) -> (String, u64) {
        (name.to_owned(), node)
    }

    #[test]
    fn pipelines_go_to_whoever_has_fewest() {
        let now = Instant::now();
        let mut claims = Claims::new(now);
        let all = [seen(1, 0), seen(2, 10), seen(3, 10)];
        let pipelines = [wanted("a", 0), wanted("b", 1), wanted("c", 0), wanted("d", 0)];
        let decided = claims.decide(now, &all, &pipelines);
        assert_eq!(told(decided), [of("a", 2), of("c", 3), of("d", 1)]);
    }

    #[test]
    fn the_pipelines_of_a_silent_node_go_to_others() {
        let now = Instant::now();
        let mut claims = Claims::new(now);
        let pipelines = [wanted("a", 3), wanted("b", 2), wanted("c", 3)];
        let all = [seen(1, 0), seen(2, 10), seen(3, 699)];
        assert_eq!(claims.decide(now, &all, &pipelines), []);
        let all = [seen(1, 0), seen(2, 10), seen(3, 700)];
        assert_eq!(told(claims.decide(now, &all, &pipelines)), [of("a", 1), of("c", 1)]);
    }

    #[test]
    fn a_new_leader_gives_others_time_to_be_heard() {
        let now = Instant::now();
        let mut claims = Claims::new(now);
        let unheard = Seen { node: NodeId(2), silent_for: None, behind: None };
        let pipelines = [wanted("a", 2), wanted("b", 0)];
        let all = [seen(1, 0), unheard];
        assert_eq!(told(claims.decide(now, &all, &pipelines)), [of("b", 1)]);
        let later = now + UNHEARD;
        assert_eq!(told(claims.decide(later, &all, &pipelines)), [of("a", 1), of("b", 1)]);
    }

    #[test]
    fn one_pipeline_moves_when_nodes_have_differed_for_long() {
        let now = Instant::now();
        let mut claims = Claims::new(now);
        let all = [seen(1, 0), seen(2, 10)];
        let pipelines = [wanted("a", 1), wanted("b", 1)];
        assert_eq!(claims.decide(now, &all, &pipelines), []);
        let later = now + UNEVEN;
        assert_eq!(told(claims.decide(later, &all, &pipelines)), [of("a", 2)]);
        let pipelines = [wanted("a", 2), wanted("b", 1)];
        assert_eq!(claims.decide(later + UNEVEN, &all, &pipelines), []);
    }

    #[test]
    fn a_node_that_is_far_behind_loses_what_it_has() {
        let now = Instant::now();
        let mut claims = Claims::new(now);
        let slow = Seen { behind: Some(BEHIND_FAR + 1), ..seen(2, 10) };
        let all = [seen(1, 0), slow];
        let pipelines = [wanted("a", 2), wanted("b", 0)];
        assert_eq!(told(claims.decide(now, &all, &pipelines)), [of("b", 1)]);
        let decided = claims.decide(now + SLOW, &all, &pipelines);
        assert_eq!(told(decided), [of("a", 1), of("b", 1)]);
    }

    #[test]
    fn what_moves_without_coming_further_moves_more_and_more_slowly() {
        let (begin, mut moves) = (Instant::now(), Moves::default());
        let claims = Claims::new(begin);
        let mut waits = Vec::new();
        for fence in 0..8 {
            moves.look(begin, [("a", fence, 7)].into_iter());
            let of = moves.of("a");
            let is_alive = |ms: &u64| claims.is_alive(&seen(3, *ms), begin, of);
            waits.push((0..20_000).take_while(is_alive).count());
        }
        assert_eq!(waits, [700, 700, 1_400, 2_800, 5_600, 11_200, 11_200, 11_200]);
        let taken = Wanted { moves: moves.of("a"), ..wanted("a", 3) };
        let nodes = [seen(1, 0), seen(3, 2_000)];
        assert_eq!(claims.clone().decide(begin, &nodes, &[taken]), []);
        // It has come further.
        moves.look(begin, [("a", 7, 8)].into_iter());
        assert_eq!(moves.of("a"), 0);
        // It moved, and moved again long after that.
        moves.look(begin, [("a", 8, 8)].into_iter());
        moves.look(begin + SETTLED, [("a", 9, 8)].into_iter());
        assert_eq!(moves.of("a"), 0);
        moves.look(begin, [].into_iter());
        assert_eq!(moves.of("a"), 0);
    }
}
