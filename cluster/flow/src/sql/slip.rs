//! Slips that are seen a few tokens behind where they are.
//!
//! What follows from them where they are seen says little: a word that is no unit of an interval is a `)` that is
//! missing, a statement without its `;` takes the first word of the next one for an alias, and a text that is not
//! closed ends where the next one begins. So when something is refused, what stands in front of it is looked at.
//!
//! Invariant: nothing is refused for what is found here; it is only told in other words, or at another place.

use super::cursor::position;
use crate::problem::Problem;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// The units of an interval, of which each may have an `S` at its end.
const UNITS: [&str; 5] = ["MILLISECOND", "SECOND", "MINUTE", "HOUR", "DAY"];

fn is_word(token: &TokenWithSpan, wanted: &str) -> bool {
    matches!(&token.token, Token::Word(word)
        if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

/// What is most likely wrong where a token is refused, with those of its statement in front of it.
pub fn likely(before: &[TokenWithSpan], refused: Option<&TokenWithSpan>) -> Option<Problem> {
    let refused = refused?;
    no_semicolon(before, refused)
        .or_else(|| no_unit(before, refused))
        .or_else(|| table_of_flink(before, refused))
}

/// Two words, or a word and a text, with which a statement begins: the first one was taken for an alias.
fn no_semicolon(before: &[TokenWithSpan], refused: &TokenWithSpan) -> Option<Problem> {
    // With the first word of all a statement does begin.
    let [_, .., last] = before else { return None };
    let is_text = matches!(refused.token, Token::SingleQuotedString(_));
    let begins = is_word(last, "CREATE")
        && (is_word(refused, "STREAM") || is_word(refused, "TABLE"))
        || is_word(last, "INSERT") && is_word(refused, "INTO")
        || is_word(last, "TEST") && is_text;
    begins.then(|| {
        let found = format!("`{}`", last.token);
        Problem::expected(position(last.span.start), found, "`;` before it")
    })
}

/// `INTERVAL '10' SECNDS`: the word is refused, or was taken for an alias.
fn no_unit(before: &[TokenWithSpan], refused: &TokenWithSpan) -> Option<Problem> {
    let is_number = |token: &TokenWithSpan| {
        matches!(token.token, Token::SingleQuotedString(_) | Token::Number(..))
    };
    let unit = match before {
        [.., first, number] if is_word(first, "INTERVAL") && is_number(number) => refused,
        [.., first, number, unit] if is_word(first, "INTERVAL") && is_number(number) => unit,
        _ => return None,
    };
    let Token::Word(word) = &unit.token else { return None };
    let written = word.value.to_ascii_uppercase();
    let is_unit = UNITS.contains(&written.strip_suffix('S').unwrap_or(&written));
    (!is_unit).then(|| {
        let expected = UNITS.join(", ");
        Problem::expected(
            position(unit.span.start),
            format!("`{word}`"),
            format!("one of {expected}"),
        )
    })
}

/// `TUMBLE(TABLE t, ...)`.
fn table_of_flink(before: &[TokenWithSpan], refused: &TokenWithSpan) -> Option<Problem> {
    let [.., open, table] = before else { return None };
    let is_table = open.token == Token::LParen && is_word(table, "TABLE");
    (is_table && matches!(refused.token, Token::Word(_))).then(|| {
        let found = format!("`{} {}`", table.token, refused.token);
        let expected = "a stream and an INTERVAL, as in TUMBLE(stream, INTERVAL '10' SECOND)";
        Problem::expected(position(table.span.start), found, expected)
    })
}

/// The text that is not closed, if the last one of a file is not: each quote behind it is taken for its opposite, so
/// the first text that goes over the end of a line is most likely the one.
pub fn open_text(tokens: &[TokenWithSpan]) -> Option<Problem> {
    let goes_on = |token: &&TokenWithSpan| matches!(&token.token, Token::SingleQuotedString(text) if text.contains('\n'));
    tokens.iter().find(goes_on).map(|token| {
        let expected =
            "`'` behind each text; this one is the first that goes over the end of its line";
        Problem::expected(position(token.span.start), "a text without an end in the file", expected)
    })
}
