//! Topics as streams and tables: what a record has to be to become a row.

use super::bind::{Binder, Scope};
use super::expr::Expr;
use super::written::{begin, data_type, interval};
use super::{Column, Role};
use crate::problem::{Position, Problem};
use crate::sql::cursor::Name;
use crate::sql::statement::{self, Late, OnError};
use crate::value::Type;
use crate::value::json::{Path, Wanted};

/// Where the value of a column comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The payload.
    Payload(Path),
    /// The key, as text.
    Key,
    /// The headers, as an object of texts.
    Headers,
    /// The timestamp of the record.
    Timestamp,
    /// The number of the partition.
    Partition,
    /// The offset.
    Offset,
}

/// A column of a source.
#[derive(Clone, Debug)]
pub struct SourceColumn {
    /// Name and type.
    pub column: Column,
    /// Where its value comes from.
    pub origin: Origin,
    /// Whether it may not be NULL.
    pub not_null: bool,
    /// Where it was declared.
    pub at: Position,
}

/// The event time of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The column with the event time.
    pub column: usize,
    /// How far the watermark stays behind, in milliseconds.
    pub delay_ms: i64,
    /// After how many milliseconds a silent partition no longer counts.
    pub idle_ms: Option<i64>,
}

/// A topic as a stream or a table.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// Its columns.
    pub columns: Vec<SourceColumn>,
    /// What they look at in a payload.
    pub wanted: Wanted,
    /// What has to hold for a row. NULL holds.
    pub checks: Vec<Expr>,
    /// For a table, its primary key.
    pub primary: Option<Vec<usize>>,
    /// The event time.
    pub watermark: Option<Watermark>,
    /// What becomes of a record that cannot be used.
    pub on_error: OnError,
    /// What becomes of a late record.
    pub late: Late,
    /// Where it was declared.
    pub at: Position,
}

impl Source {
    /// The columns as queries see them.
    pub fn columns(&self) -> Vec<Column> {
        self.columns.iter().map(|column| column.column.clone()).collect()
    }

    /// The topic for bad records.
    pub fn dead_letters(&self) -> Option<&str> {
        match &self.on_error {
            OnError::DeadLetter(topic) => Some(topic.text.as_str()),
            OnError::Drop | OnError::Fail => None,
        }
    }

    /// The topics for bad and late records.
    pub fn beside(&self) -> impl Iterator<Item = &str> {
        let late = match &self.late {
            Late::To(topic) => Some(topic.text.as_str()),
            Late::Drop => None,
        };
        self.dead_letters().into_iter().chain(late)
    }
}

/// Makes a source of its statement.
pub fn source(written: &statement::Source) -> Result<Source, Problem> {
    let mut columns: Vec<SourceColumn> = Vec::new();
    for column in &written.columns {
        if columns.iter().any(|other| other.column.name == column.name.text) {
            let found = format!("a second column `{}`", column.name.text);
            return Err(Problem::expected(column.name.at, found, "another name"));
        }
        columns.push(self::column(column)?);
    }
    let scope = Scope::of(
        &written.name.text,
        &columns.iter().map(|column| column.column.clone()).collect::<Vec<_>>(),
    );
    let checks = written.columns.iter().filter_map(|column| column.check.as_ref());
    let checks = checks.chain(&written.checks).map(|(check, at)| {
        // Where it begins is known better than where its first name stands.
        Binder::new(&scope).condition(check).map(|expr| Expr { at: *at, ..expr })
    });
    let checks = checks.collect::<Result<Vec<_>, _>>()?;
    let primary = primary(written, &mut columns)?;
    let watermark = written.watermark.as_ref().map(|w| watermark(w, &columns)).transpose()?;
    let at = written.name.at;
    let Some(on_error) = written.on_error.clone() else {
        let found = format!("`{}` without ON ERROR", written.name.text);
        return Err(Problem::expected(at, found, "ON ERROR DEAD LETTER topic, DROP or FAIL"));
    };
    let late = match (&written.late, &watermark) {
        (Some(late), Some(_)) if primary.is_none() => late.clone(),
        (Some(_), _) => {
            let found = format!("LATE at `{}`", written.name.text);
            return Err(Problem::expected(at, found, "LATE at a stream with a WATERMARK only"));
        }
        (None, Some(_)) if primary.is_none() => {
            let found = format!("`{}` with a WATERMARK and without LATE", written.name.text);
            return Err(Problem::expected(at, found, "LATE TO topic or LATE DROP"));
        }
        (None, _) => Late::Drop,
    };
    let (name, topic) = (written.name.text.clone(), written.topic.text.clone());
    let wanted = Wanted::of(columns.iter().filter_map(|column| match &column.origin {
        Origin::Payload(path) => Some(path),
        _ => None,
    }));
    let source =
        Source { name, topic, columns, wanted, checks, primary, watermark, on_error, late, at };
    if source.beside().any(|topic| topic == source.topic) {
        let found = format!("`{}`, which is read", source.topic);
        return Err(Problem::expected(at, found, "another topic for late and bad records"));
    }
    Ok(source)
}

fn column(written: &statement::Column) -> Result<SourceColumn, Problem> {
    let of = data_type(&written.data_type, written.type_at)?;
    let need = |wanted: Type, origin: Origin, name: &Name| {
        let found = format!("{of} for METADATA FROM '{}'", name.text);
        if of == wanted { Ok(origin) } else { Err(Problem::expected(name.at, found, wanted)) }
    };
    let origin = match (&written.path, &written.metadata) {
        (None, None) => Origin::Payload(Path::member(&written.name.text)),
        (Some(path), None) => Origin::Payload(Path::parse(&path.text).ok_or_else(|| {
            let expected = "a path like $.motor.speed[0]";
            Problem::expected(path.at, format!("`{}`", path.text), expected)
        })?),
        (None, Some(name)) => match name.text.as_str() {
            "key" => need(Type::Varchar, Origin::Key, name)?,
            "headers" => need(Type::Json, Origin::Headers, name)?,
            "timestamp" => need(Type::Timestamp, Origin::Timestamp, name)?,
            "partition" => need(Type::Bigint, Origin::Partition, name)?,
            "offset" => need(Type::Bigint, Origin::Offset, name)?,
            _ => {
                let expected = "key, headers, timestamp, partition or offset";
                return Err(Problem::expected(name.at, format!("`{}`", name.text), expected));
            }
        },
        (Some(path), Some(_)) => {
            return Err(Problem::expected(path.at, "PATH and METADATA", "one of them"));
        }
    };
    let column = Column { name: written.name.text.clone(), of, role: Role::Plain };
    let not_null = written.not_null || written.is_primary;
    Ok(SourceColumn { column, origin, not_null, at: written.name.at })
}

fn primary(
    written: &statement::Source,
    columns: &mut [SourceColumn],
) -> Result<Option<Vec<usize>>, Problem> {
    let mut primary: Vec<usize> = Vec::new();
    for (index, column) in written.columns.iter().enumerate() {
        primary.extend(column.is_primary.then_some(index));
    }
    for name in &written.primary {
        let found = columns.iter().position(|column| column.column.name == name.text);
        let index = found.ok_or_else(|| {
            Problem::expected(name.at, format!("`{}`", name.text), "a column of the table")
        })?;
        primary.push(index);
        columns[index].not_null = true;
    }
    let at = written.name.at;
    match (written.is_table, primary.is_empty()) {
        (true, true) => {
            Err(Problem::expected(at, "a table without PRIMARY KEY", "PRIMARY KEY at its columns"))
        }
        (false, false) => {
            Err(Problem::expected(at, "a stream with PRIMARY KEY", "a table, or no PRIMARY KEY"))
        }
        (true, false) => {
            let json = primary.iter().find(|index| !columns[**index].column.of.is_ordered());
            match json {
                Some(index) => Err(Problem::expected(
                    columns[*index].at,
                    "a PRIMARY KEY of type JSON",
                    "a type that can be compared",
                )),
                None => Ok(Some(primary)),
            }
        }
        (false, true) => Ok(None),
    }
}

fn watermark(
    written: &statement::Watermark,
    columns: &[SourceColumn],
) -> Result<Watermark, Problem> {
    let name = &written.column;
    let found = columns.iter().position(|column| column.column.name == name.text);
    let is_time = |index: &usize| columns[*index].column.of == Type::Timestamp;
    let column = found.filter(is_time).ok_or_else(|| {
        let expected = "a column of type TIMESTAMP(3)";
        Problem::expected(name.at, format!("`{}`", name.text), expected)
    })?;
    let delay_ms = written.delay.as_ref().map_or(Ok(0), interval)?;
    let idle_ms = written.idle.as_ref().map(interval).transpose()?;
    if let (Some(0), Some(idle)) = (idle_ms, &written.idle) {
        // All would be idle at once, and time would stand still.
        let expected = "IDLE and a longer interval, or none";
        return Err(Problem::expected(begin(idle), "IDLE after nothing", expected));
    }
    Ok(Watermark { column, delay_ms, idle_ms })
}
