//! From the text of a file to statements.
//!
//! | module | what |
//! |---|---|
//! | [`cursor`] | a walk over the tokens of one statement |
//! | [`statement`] | what a statement may be, and reading it |
//! | [`fixture`] | `TEST` statements |
//! | `slip` | what is most likely wrong in front of what is refused |
//!
//! The tokens and everything between `SELECT` and the end are `sqlparser`'s work; our own clauses are
//! read here, token by token, so that nothing has to be added to its grammar.
//!
//! Invariant: what is not understood is a problem with its place. Nothing is skipped.

pub mod cursor;
pub mod fixture;
mod slip;
pub mod statement;

use crate::problem::{Position, Problem};
use cursor::{Cursor, position};
use sqlparser::dialect::Dialect;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use statement::Statement;
use std::collections::BTreeSet;

/// The longest file, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The most tokens of one statement, so that no tree is too deep to be walked.
const STATEMENT_TOKENS_MAX: usize = 1_000;

/// How our files are cut into tokens: names as in standard SQL, in letters of any language.
#[derive(Debug)]
pub struct Fulmar;

impl Dialect for Fulmar {
    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_'
    }

    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '"'
    }

    /// So that it can be refused by name.
    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }
}

/// What is in a file.
#[derive(Debug, Default)]
pub struct Statements {
    /// The statements.
    pub read: Vec<Statement>,
    /// The problems of those that are none.
    pub problems: Vec<Problem>,
    /// The names that those were to define.
    pub broken: BTreeSet<String>,
}

impl Statements {
    fn none(problem: Problem) -> Self {
        Self { problems: vec![problem], ..Self::default() }
    }
}

/// The statements of a file.
pub fn statements(text: &str) -> Statements {
    let start = Position { line: 1, column: 1 };
    if text.len() > FILE_BYTES_MAX {
        let found = format!("{} bytes", text.len());
        return Statements::none(Problem::expected(start, found, "at most 1 MiB"));
    }
    let mut tokens = Vec::new();
    let done = Tokenizer::new(&Fulmar, text).tokenize_with_location_into_buf(&mut tokens);
    if let Err(error) = done {
        let is_text = error.message == "Unterminated string literal";
        let likely = if is_text { slip::open_text(&tokens) } else { None };
        let seen = || Problem::new(position(error.location), error.message);
        return Statements::none(likely.unwrap_or_else(seen));
    }
    let is_code = |token: &TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::EOF);
    let tokens: Vec<TokenWithSpan> = tokens.into_iter().filter(is_code).collect();
    let mut all = Statements::default();
    for piece in tokens.split_inclusive(|token| token.token == Token::SemiColon) {
        let (last, inside) = match piece.split_last() {
            Some((last, inside)) if last.token == Token::SemiColon => (last, inside),
            Some((last, _)) => (last, piece),
            None => continue,
        };
        if inside.is_empty() {
            continue;
        }
        let end = if last.token == Token::SemiColon { last.span.start } else { last.span.end };
        let mut cursor = Cursor::new(inside, end);
        if inside.len() > STATEMENT_TOKENS_MAX && !cursor.at_word("TEST") {
            let found = format!("a statement of {} tokens", inside.len());
            let expected = format!("at most {STATEMENT_TOKENS_MAX}");
            all.problems.push(Problem::expected(cursor.position(), found, expected));
            all.broken.extend(defined(inside, end));
            continue;
        }
        match statement::read(&mut cursor) {
            Ok(statement) => all.read.push(statement),
            Err(problem) => {
                all.problems.push(problem);
                all.broken.extend(defined(inside, end));
            }
        }
    }
    if all.read.is_empty() && all.problems.is_empty() {
        all.problems.push(Problem::expected(start, "no statement", "CREATE, INSERT or TEST"));
    }
    all
}

/// The names that a statement was to define, whatever else is in it: with a slip in its first words, or with several
/// statements in it for want of a `;`.
fn defined(tokens: &[TokenWithSpan], end: Location) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for at in 0..tokens.len() {
        let mut cursor = Cursor::new(&tokens[at..], end);
        if cursor.word("CREATE") && (cursor.word("STREAM") || cursor.word("TABLE")) {
            names.extend(cursor.name("a name").map(|name| name.text));
        }
    }
    let mut cursor = Cursor::new(tokens, end);
    let is_other = cursor.at_word("INSERT") || cursor.at_word("TEST");
    if names.is_empty()
        && !is_other
        && cursor.name("CREATE").is_ok()
        && cursor.name("STREAM").is_ok()
    {
        let name = cursor.name("a name").ok();
        // `DROP STREAM s` and the like define nothing.
        names.extend(name.filter(|_| !cursor.is_done()).map(|name| name.text));
    }
    names
}
