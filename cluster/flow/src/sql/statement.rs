//! What a statement may be, and reading it. The set is closed.
//!
//! Invariant: types, names and columns are not looked at here; that is the planner's work.

use super::cursor::{Cursor, Name};
use super::fixture::{self, Fixture};
use crate::problem::{Position, Problem};
use sqlparser::ast::{DataType, Expr, Query};
use sqlparser::tokenizer::Token;

/// One statement of a file.
#[derive(Debug)]
pub enum Statement {
    /// `CREATE STREAM ... FROM TOPIC` or `CREATE TABLE ... FROM TOPIC`.
    Source(Box<Source>),
    /// `CREATE STREAM ... AS SELECT`, with or without a topic, and `INSERT INTO TOPIC`.
    Query(Box<Named>),
    /// `TEST`.
    Test(Fixture),
}

/// A topic with the columns of its records.
#[derive(Debug)]
pub struct Source {
    /// Its name in queries.
    pub name: Name,
    /// Whether it is a table, which holds the latest record of each key.
    pub is_table: bool,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Columns of the primary key that were named behind the columns.
    pub primary: Vec<Name>,
    /// Conditions that were named behind the columns.
    pub checks: Vec<(Expr, Position)>,
    /// The topic.
    pub topic: Name,
    /// The column with the event time, and how late it may be.
    pub watermark: Option<Watermark>,
    /// What becomes of a record that cannot be used.
    pub on_error: Option<OnError>,
    /// What becomes of a late record.
    pub late: Option<Late>,
}

/// A column of a source.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: Name,
    /// Its type.
    pub data_type: DataType,
    /// Where the type stands.
    pub type_at: Position,
    /// Whether it may not be NULL.
    pub not_null: bool,
    /// Whether it is the primary key.
    pub is_primary: bool,
    /// A condition.
    pub check: Option<(Expr, Position)>,
    /// Where it is in the payload, if not under its name.
    pub path: Option<Name>,
    /// Which part of the record it is, if not of the payload.
    pub metadata: Option<Name>,
}

/// `WATERMARK column - INTERVAL ... IDLE INTERVAL ...`
#[derive(Debug)]
pub struct Watermark {
    /// The column with the event time.
    pub column: Name,
    /// How much is subtracted.
    pub delay: Option<Expr>,
    /// After how long a silent partition no longer counts.
    pub idle: Option<Expr>,
}

/// What becomes of a record that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It goes to a topic.
    DeadLetter(Name),
    /// It is counted.
    Drop,
    /// The pipeline stops.
    Fail,
}

/// What becomes of a late record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Late {
    /// It goes to a topic.
    To(Name),
    /// It is counted.
    Drop,
}

/// A query whose rows have a name, go to a topic, or both.
#[derive(Debug)]
pub struct Named {
    /// Its name in other queries.
    pub name: Option<Name>,
    /// The topic.
    pub topic: Option<Name>,
    /// The column that becomes the key of the records.
    pub key: Option<Name>,
    /// The query.
    pub query: Query,
}

/// Reads one statement to its end.
pub fn read(cursor: &mut Cursor<'_>) -> Result<Statement, Problem> {
    if cursor.at_word("TEST") {
        return fixture::read(cursor).map(Statement::Test);
    }
    if cursor.word("INSERT") {
        cursor.words(&["INTO", "TOPIC"])?;
        let topic = Some(cursor.topic()?);
        let key = key(cursor)?;
        let query = cursor.query()?;
        return Ok(Statement::Query(Box::new(Named { name: None, topic, key, query })));
    }
    if !cursor.word("CREATE") {
        return Err(cursor.refuse("CREATE, INSERT or TEST"));
    }
    let is_table = cursor.word("TABLE");
    if !is_table && !cursor.word("STREAM") {
        return Err(cursor.refuse("STREAM or TABLE"));
    }
    let name = cursor.name("a name")?;
    if cursor.token(&Token::LParen) {
        return source(cursor, name, is_table).map(|source| Statement::Source(Box::new(source)));
    }
    if is_table {
        return Err(cursor.refuse("`(` and the columns of the table"));
    }
    let mut topic = None;
    if cursor.word("TO") {
        cursor.words(&["TOPIC"])?;
        topic = Some(cursor.topic()?);
    }
    let key = if topic.is_some() { key(cursor)? } else { None };
    if !cursor.word("AS") {
        let expected = if topic.is_some() { "KEY or AS" } else { "`(`, TO TOPIC or AS" };
        return Err(cursor.refuse(expected));
    }
    let query = cursor.query()?;
    Ok(Statement::Query(Box::new(Named { name: Some(name), topic, key, query })))
}

fn key(cursor: &mut Cursor<'_>) -> Result<Option<Name>, Problem> {
    if cursor.word("KEY") { cursor.name("a column").map(Some) } else { Ok(None) }
}

/// From behind the opening parenthesis.
fn source(cursor: &mut Cursor<'_>, name: Name, is_table: bool) -> Result<Source, Problem> {
    let (mut columns, mut primary, mut checks) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        if cursor.word("PRIMARY") {
            cursor.words(&["KEY"])?;
            cursor.need(&Token::LParen)?;
            loop {
                primary.push(cursor.name("a column")?);
                if !cursor.token(&Token::Comma) {
                    break;
                }
            }
            cursor.need(&Token::RParen)?;
        } else if cursor.word("CHECK") {
            checks.push(cursor.condition()?);
        } else {
            columns.push(column(cursor)?);
        }
        if !cursor.token(&Token::Comma) {
            break;
        }
    }
    if !cursor.token(&Token::RParen) {
        return Err(cursor.refuse("NOT NULL, PRIMARY KEY, CHECK, PATH, METADATA, `,` or `)`"));
    }
    cursor.words(&["FROM", "TOPIC"])?;
    let topic = cursor.topic()?;
    let mut source = Source {
        name,
        is_table,
        columns,
        primary,
        checks,
        topic,
        watermark: None,
        on_error: None,
        late: None,
    };
    while !cursor.is_done() {
        clause(cursor, &mut source)?;
    }
    Ok(source)
}

/// One of the clauses behind the topic.
fn clause(cursor: &mut Cursor<'_>, source: &mut Source) -> Result<(), Problem> {
    if source.watermark.is_none() && cursor.word("WATERMARK") {
        let column = cursor.name("the column with the event time")?;
        let delay = if cursor.token(&Token::Minus) { Some(cursor.expression()?) } else { None };
        let idle = if cursor.word("IDLE") { Some(cursor.expression()?) } else { None };
        source.watermark = Some(Watermark { column, delay, idle });
    } else if source.on_error.is_none() && cursor.word("ON") {
        cursor.words(&["ERROR"])?;
        source.on_error = Some(if cursor.word("DEAD") {
            cursor.words(&["LETTER"])?;
            OnError::DeadLetter(cursor.topic()?)
        } else if cursor.word("DROP") {
            OnError::Drop
        } else if cursor.word("FAIL") {
            OnError::Fail
        } else {
            return Err(cursor.refuse("DEAD LETTER, DROP or FAIL"));
        });
    } else if source.late.is_none() && cursor.word("LATE") {
        source.late = Some(if cursor.word("TO") {
            Late::To(cursor.topic()?)
        } else if cursor.word("DROP") {
            Late::Drop
        } else {
            return Err(cursor.refuse("TO or DROP"));
        });
    } else {
        let is_there =
            [source.watermark.is_some(), source.on_error.is_some(), source.late.is_some()];
        let clauses = ["WATERMARK", "ON ERROR", "LATE"].into_iter().zip(is_there);
        let left: Vec<&str> =
            clauses.filter(|(_, is_there)| !is_there).map(|(name, _)| name).collect();
        let expected = match left.as_slice() {
            [] => "`;`".to_owned(),
            left => format!("{} or `;`", left.join(", ")),
        };
        return Err(cursor.refuse(expected));
    }
    Ok(())
}

fn column(cursor: &mut Cursor<'_>) -> Result<Column, Problem> {
    let name = cursor.name("the name of a column")?;
    let (data_type, type_at) = cursor.data_type()?;
    let mut column = Column {
        name,
        data_type,
        type_at,
        not_null: false,
        is_primary: false,
        check: None,
        path: None,
        metadata: None,
    };
    loop {
        if !column.not_null && cursor.word("NOT") {
            cursor.words(&["NULL"])?;
            column.not_null = true;
        } else if !column.is_primary && cursor.word("PRIMARY") {
            cursor.words(&["KEY"])?;
            column.is_primary = true;
        } else if column.check.is_none() && cursor.word("CHECK") {
            column.check = Some(cursor.condition()?);
        } else if column.path.is_none() && cursor.word("PATH") {
            column.path = Some(cursor.text("a path like $.motor.speed")?);
        } else if column.metadata.is_none() && cursor.word("METADATA") {
            cursor.words(&["FROM"])?;
            column.metadata = Some(cursor.text("key, headers, timestamp, partition or offset")?);
        } else {
            return Ok(column);
        }
    }
}
