//! From the text of a file to statements.
//!
//! | module | what |
//! |---|---|
//! | [`cursor`] | a walk over the tokens of one statement |
//! | [`statement`] | what a statement may be, and reading it |
//! | [`fixture`] | `TEST` statements |
//!
//! The tokens and everything between `SELECT` and the end are `sqlparser`'s work; our own clauses are
//! read here, token by token, so that nothing has to be added to its grammar.
//!
//! Invariant: what is not understood is a problem with its place. Nothing is skipped.

pub mod cursor;
pub mod fixture;
pub mod statement;

use crate::problem::{Position, Problem};
use cursor::{Cursor, position};
use sqlparser::dialect::Dialect;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use statement::Statement;

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
}

/// The statements of a file, and the problems of those that are none.
pub fn statements(text: &str) -> (Vec<Statement>, Vec<Problem>) {
    let start = Position { line: 1, column: 1 };
    if text.len() > FILE_BYTES_MAX {
        let found = format!("{} bytes", text.len());
        return (Vec::new(), vec![Problem::expected(start, found, "at most 1 MiB")]);
    }
    let tokens = match Tokenizer::new(&Fulmar, text).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(error) => {
            return (Vec::new(), vec![Problem::new(position(error.location), error.message)]);
        }
    };
    let is_code = |token: &TokenWithSpan| !matches!(token.token, Token::Whitespace(_) | Token::EOF);
    let tokens: Vec<TokenWithSpan> = tokens.into_iter().filter(is_code).collect();
    let (mut statements, mut problems) = (Vec::new(), Vec::new());
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
            problems.push(Problem::expected(cursor.position(), found, expected));
            continue;
        }
        match statement::read(&mut cursor) {
            Ok(statement) => statements.push(statement),
            Err(problem) => problems.push(problem),
        }
    }
    if statements.is_empty() && problems.is_empty() {
        problems.push(Problem::expected(start, "no statement", "CREATE, INSERT or TEST"));
    }
    (statements, problems)
}
