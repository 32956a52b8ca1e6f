//! The driver of one partition's [`Window`]: it finds the leader, sends what the window hands out,
//! and gives the answers back.
//!
//! Invariant: `answers` are those of the batches in flight, in the order of the window, all on the
//! connection of `leader`.

use super::identity::Identities;
use super::window::{Answered, Slot, Window};
use super::{Acks, ProducerSettings, SendError};
use crate::cluster::{Cluster, Leader};
use crate::connection::Answer;
use crate::error::CallError;
use crate::metadata::TopicPartition;
use bytes::Bytes;
use fulmar_host::time::{self, Instant};
use fulmar_wire::{
    ErrorCode, PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// Answers that are awaited, oldest first, counted together with those of the other lanes.
pub(super) struct Answers {
    queue: VecDeque<Answer<ProduceRequest>>,
    in_flight: Arc<AtomicUsize>,
}

impl Answers {
    pub(super) fn new(in_flight: Arc<AtomicUsize>) -> Self {
        Self { queue: VecDeque::new(), in_flight }
    }

    fn push(&mut self, answer: Answer<ProduceRequest>) {
        self.queue.push_back(answer);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn pop(&mut self) {
        if self.queue.pop_front().is_some() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.queue.len(), Ordering::Relaxed);
    }
}

pub(super) struct Lane {
    cluster: Cluster,
    partition: TopicPartition,
    settings: ProducerSettings,
    identities: Arc<Identities>,
    window: Window,
    leader: Option<Leader>,
    /// The leader failed us: find it anew before anything more is sent.
    leader_is_stale: bool,
    answers: Answers,
    failures: u32,
}

impl Lane {
    pub(super) fn new(
        cluster: Cluster,
        partition: TopicPartition,
        settings: ProducerSettings,
        identities: Arc<Identities>,
        answers: Answers,
    ) -> Self {
        let window = Window::new(settings.idempotent, settings.in_flight_max);
        Self {
            cluster,
            partition,
            settings,
            identities,
            window,
            leader: None,
            leader_is_stale: false,
            answers,
            failures: 0,
        }
    }

    /// Runs until the queue is closed and empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Slot>) {
        loop {
            if self.window.is_empty() {
                let Some(slot) = queue.recv().await else { return };
                self.window.push(slot);
            }
            while self.window.has_room()
                && let Ok(slot) = queue.try_recv()
            {
                self.window.push(slot);
            }
            self.window.expire(time::now());
            self.send_ready().await;
            if self.window.is_stalled() {
                self.pause().await;
            } else {
                self.wait(&mut queue).await;
            }
        }
    }

    async fn pause(&mut self) {
        self.failures += 1;
        if let Some(deadline) = self.window.deadline() {
            self.cluster.pause(self.failures, deadline).await;
        }
        self.window.resume();
    }

    /// Sends all that may be sent now.
    async fn send_ready(&mut self) {
        while self.window.can_send()
            && let Some(deadline) = self.window.deadline()
        {
            if let Err(error) = self.prepare(deadline).await {
                // What is in flight goes on; the rest waits for a pause.
                return self.window.note(&error);
            }
            let Some(batch) = self.window.take_next() else { continue };
            let Some(leader) = &self.leader else { return };
            let connection = leader.connection.clone();
            let request = self.produce_request(batch);
            let sent_deadline = self.window.sent_deadline().unwrap_or(deadline);
            let until = sent_deadline.min(time::now() + self.cluster.settings().request_timeout);
            if self.settings.acks == Acks::None {
                match connection.start_unanswered(&request) {
                    Ok(()) => self.window.not_asked(),
                    Err(error) => self.not_started(error),
                }
                continue;
            }
            match connection.start(&request, until).await {
                Ok(answer) => self.answers.push(answer),
                Err(error) => self.not_started(error),
            }
        }
    }

    fn not_started(&mut self, error: CallError) {
        self.window.not_started(error);
        self.forget_leader();
    }

    /// Sees to a producer id and a leader. A leader is kept while batches are in flight to it.
    async fn prepare(&mut self, deadline: Instant) -> Result<(), SendError> {
        if let Some(used) = self.window.needs_identity() {
            let identity = self.identities.other_than(used, deadline).await?;
            self.window.identify(identity);
        }
        if self.leader_is_stale || self.leader.is_none() {
            assert!(self.answers.queue.is_empty(), "batches are in flight to a leader that failed");
            self.leader = None;
            self.leader_is_stale = false;
            self.leader = Some(self.cluster.leader(&self.partition, deadline).await?);
        }
        Ok(())
    }

    /// Waits for the next answer, or for something more to send.
    async fn wait(&mut self, queue: &mut mpsc::Receiver<Slot>) {
        let (Some(leader), Some(answer)) = (&self.leader, self.answers.queue.front_mut()) else {
            return;
        };
        let has_room = self.window.has_room();
        let answered = tokio::select! {
            biased;
            answered = self.cluster.await_leader(&self.partition, leader, answer) => answered,
            Some(slot) = queue.recv(), if has_room => {
                self.window.push(slot);
                return;
            }
        };
        self.answers.pop();
        self.answered(answered.map(outcome));
    }

    fn answered(&mut self, answered: Answered) {
        let failed = match &answered {
            Ok((ErrorCode::None, _)) => false,
            Ok((code, _)) => code.is_retriable(),
            Err(_) => true,
        };
        if failed {
            self.forget_leader();
        } else {
            self.failures = 0;
        }
        self.window.answered(answered);
    }

    fn produce_request(&self, batch: Bytes) -> ProduceRequest {
        // The broker need not go on waiting for its majority when we have given the request up.
        let patience = self.cluster.settings().request_timeout.min(self.settings.delivery_timeout);
        let data =
            PartitionProduceData { index: self.partition.wire_index(), records: Some(batch) };
        let name = self.partition.topic.to_string();
        ProduceRequest {
            transactional_id: None,
            acks: self.settings.acks.code(),
            timeout_ms: i32::try_from(patience.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![TopicProduceData { name, partition_data: vec![data] }],
        }
    }

    fn forget_leader(&mut self) {
        self.leader_is_stale = true;
        if let Some(leader) = &self.leader {
            self.cluster.forget_leader(&self.partition, leader.epoch);
        }
    }
}

/// The one outcome in an answer. An answer that says nothing about the batch is an error of the
/// broker, after which nothing is certain.
fn outcome(answer: ProduceResponse) -> (ErrorCode, i64) {
    let topic = answer.responses.into_iter().next();
    let partition = topic.and_then(|topic| topic.partition_responses.into_iter().next());
    partition.map_or((ErrorCode::UnknownServerError, -1), |p| (p.error_code, p.base_offset))
}
