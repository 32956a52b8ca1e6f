//! `TEST`: records that go in, and records that have to come out.
//!
//! ```text
//! TEST 'name'
//!   INPUT topic [PARTITION n] [KEY 'text'] [TIMESTAMP 'time'] ('payload' | NULL)
//!   EPOCH [AFTER INTERVAL ...]
//!   OPEN
//!   EXPECT topic [KEY 'text' | KEY NULL] [REASON 'part of it'] ('payload' | NULL)
//! ```
//!
//! Inputs of a partition get the offsets 0, 1, ... `EPOCH` ends an epoch, some time after the last one.
//! The end of the inputs ends all windows, unless `OPEN` is said: then the end is an epoch like others.

use super::cursor::{Cursor, Name};
use crate::problem::{Position, Problem};
use crate::value::time;
use sqlparser::ast::Expr;

/// A `TEST` statement.
#[derive(Debug)]
pub struct Fixture {
    /// Its name.
    pub name: Name,
    /// What happens, in this order.
    pub steps: Vec<Step>,
    /// Whether windows stay open at the end.
    pub stays_open: bool,
    /// What has to come out; the order within a topic counts.
    pub expected: Vec<Expected>,
}

/// What happens in a test.
#[derive(Debug)]
pub enum Step {
    /// A record.
    Input(Input),
    /// The end of an epoch, so long after the one before.
    Epoch(Option<Box<Expr>>),
}

/// A record that goes in.
#[derive(Debug)]
pub struct Input {
    /// The topic.
    pub topic: Name,
    /// The partition.
    pub partition: u32,
    /// The key.
    pub key: Option<String>,
    /// The timestamp of the record, in milliseconds since 1970.
    pub timestamp: i64,
    /// The payload.
    pub value: Option<String>,
}

/// A record that has to come out.
#[derive(Debug)]
pub struct Expected {
    /// The topic.
    pub topic: Name,
    /// The key, if it matters.
    pub key: Option<Option<String>>,
    /// A part of the reason of a dead letter.
    pub reason: Option<String>,
    /// The payload: as JSON if it is JSON, else byte for byte.
    pub value: Option<String>,
    /// Where it stands.
    pub at: Position,
}

/// Reads the statement to its end.
pub fn read(cursor: &mut Cursor<'_>) -> Result<Fixture, Problem> {
    cursor.words(&["TEST"])?;
    let name = cursor.text("the name of the test")?;
    let mut fixture = Fixture { name, steps: Vec::new(), stays_open: false, expected: Vec::new() };
    while !cursor.is_done() {
        let at = cursor.position();
        let has_expected = !fixture.expected.is_empty() || fixture.stays_open;
        if !has_expected && cursor.word("INPUT") {
            fixture.steps.push(Step::Input(input(cursor)?));
        } else if !has_expected && cursor.word("EPOCH") {
            let after =
                if cursor.word("AFTER") { Some(Box::new(cursor.expression()?)) } else { None };
            fixture.steps.push(Step::Epoch(after));
        } else if !has_expected && cursor.word("OPEN") {
            fixture.stays_open = true;
        } else if cursor.word("EXPECT") {
            fixture.expected.push(expected(cursor, at)?);
        } else {
            let which =
                if has_expected { "EXPECT or `;`" } else { "INPUT, EPOCH, OPEN, EXPECT or `;`" };
            return Err(cursor.refuse(which));
        }
    }
    Ok(fixture)
}

fn payload(cursor: &mut Cursor<'_>, expected: &str) -> Result<Option<String>, Problem> {
    if cursor.word("NULL") {
        return Ok(None);
    }
    cursor.text(&format!("{expected}NULL or a payload")).map(|text| Some(text.text))
}

fn input(cursor: &mut Cursor<'_>) -> Result<Input, Problem> {
    let topic = cursor.topic()?;
    let mut input = Input { topic, partition: 0, key: None, timestamp: 0, value: None };
    loop {
        if cursor.word("PARTITION") {
            let expected = "a partition below 1024";
            let at = cursor.position();
            let partition = cursor.number(expected)?;
            if partition >= 1024 {
                return Err(Problem::expected(at, partition, expected));
            }
            input.partition = partition as u32;
        } else if cursor.word("KEY") {
            input.key = Some(cursor.text("a key")?.text);
        } else if cursor.word("TIMESTAMP") {
            let text = cursor.text("a time like 2026-01-31T12:00:00Z")?;
            input.timestamp = time::parse(&text.text).ok_or_else(|| {
                Problem::expected(text.at, format!("`{}`", text.text), "a time of the calendar")
            })?;
        } else {
            input.value = payload(cursor, "PARTITION, KEY, TIMESTAMP, ")?;
            return Ok(input);
        }
    }
}

fn expected(cursor: &mut Cursor<'_>, at: Position) -> Result<Expected, Problem> {
    let topic = cursor.topic()?;
    let mut expected = Expected { topic, key: None, reason: None, value: None, at };
    loop {
        if cursor.word("KEY") {
            let is_null = cursor.word("NULL");
            expected.key =
                Some(if is_null { None } else { Some(cursor.text("NULL or a key")?.text) });
        } else if cursor.word("REASON") {
            expected.reason = Some(cursor.text("a part of the reason")?.text);
        } else {
            expected.value = payload(cursor, "KEY, REASON, ")?;
            return Ok(expected);
        }
    }
}
