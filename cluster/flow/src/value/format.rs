//! Texts that say what another text is made of: of `DATE_FORMAT`, and what `REGEXP_REPLACE` puts in.
//!
//! Invariant: what means nothing is an error and never silently taken as it is.

use super::time;

/// A piece of what is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// What a group of the pattern has found.
    Group(usize),
}

/// The pieces of a replacement, for a pattern with so many groups (the whole counts): `$1` or `${1}` is a
/// group, `$$` is a dollar, and so is one before anything else.
pub fn replacement(text: &str, groups: usize) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        let after = &from[1..];
        pieces.push(Piece::Text(before));
        let inner = after.strip_prefix('{');
        let digits = inner.unwrap_or(after);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let (digits, behind) = digits.split_at(end);
        rest = if digits.is_empty() && inner.is_none() {
            pieces.push(Piece::Text("$"));
            after.strip_prefix('$').unwrap_or(after)
        } else {
            let behind = if inner.is_some() { behind.strip_prefix('}') } else { Some(behind) };
            let group = digits.parse().ok().filter(|group| *group < groups);
            let (Some(group), Some(behind)) = (group, behind) else {
                let most = groups - 1;
                return Err(format!(
                    "`${}` is none of the {most} groups of the pattern",
                    shown(after)
                ));
            };
            pieces.push(Piece::Group(group));
            behind
        };
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

/// The first characters of a text.
fn shown(text: &str) -> String {
    text.chars().take(8).collect()
}

/// Letters that stand for a part of a time, as often as they have to be there.
const FIELDS: &[&str] = &["yyyy", "MM", "dd", "HH", "mm", "ss", "SSS"];

/// A time as a pattern says: [`FIELDS`] are filled in, what is in single quotes is taken as it is (two of them
/// are one), and so is all else that is no ASCII letter.
pub fn formatted(pattern: &str, ms: i64) -> Result<String, String> {
    let civil = time::civil(ms);
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if c == '\'' {
            rest = quoted(&rest[1..], &mut out)?;
            continue;
        }
        let end = rest.find(|other| other != c).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        match run {
            "yyyy" => out.push_str(&format!("{:04}", civil.year)),
            "MM" => out.push_str(&format!("{:02}", civil.month)),
            "dd" => out.push_str(&format!("{:02}", civil.day)),
            "HH" => out.push_str(&format!("{:02}", civil.ms / 3_600_000)),
            "mm" => out.push_str(&format!("{:02}", civil.ms / 60_000 % 60)),
            "ss" => out.push_str(&format!("{:02}", civil.ms / 1_000 % 60)),
            "SSS" => out.push_str(&format!("{:03}", civil.ms % 1_000)),
            run if c.is_ascii_alphabetic() => {
                let fields = FIELDS.join(", ");
                return Err(format!(
                    "`{}` is none of {fields}; other letters stand in quotes",
                    shown(run)
                ));
            }
            run => out.push_str(run),
        }
    }
    Ok(out)
}

/// What stands behind an opening quote goes out. What is left behind the closing one.
fn quoted<'a>(text: &'a str, out: &mut String) -> Result<&'a str, String> {
    if let Some(after) = text.strip_prefix('\'') {
        out.push('\'');
        return Ok(after);
    }
    let mut rest = text;
    loop {
        let (inside, after) = rest.split_once('\'').ok_or("a quote that is not closed")?;
        out.push_str(inside);
        match after.strip_prefix('\'') {
            Some(more) => {
                out.push('\'');
                rest = more;
            }
            None => return Ok(after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_times() {
        let formatted = |pattern: &str| formatted(pattern, 1_709_212_028_009);
        assert_eq!(formatted("yyyyMMdd'T'HHmmss.SSS").as_deref(), Ok("20240229T130708.009"));
        assert_eq!(formatted("HH 'o''clock' ''mm'' é").as_deref(), Ok("13 o'clock '07' é"));
        for wrong in ["YYYY-MM-DD", "hh:mm", "yy", "yyyyy", "M", "'T", "T", "HH'''"] {
            assert!(formatted(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn replacements() {
        use Piece::{Group, Text};
        let pieces = |text| {
            replacement(text, 3).map(|pieces| {
                pieces.into_iter().filter(|piece| *piece != Text("")).collect::<Vec<_>>()
            })
        };
        assert_eq!(pieces("$1_$2"), Ok(vec![Group(1), Text("_"), Group(2)]));
        assert_eq!(pieces("${1}0é$0"), Ok(vec![Group(1), Text("0é"), Group(0)]));
        assert_eq!(
            pieces("$$1 $x$"),
            Ok(vec![Text("$"), Text("1 "), Text("$"), Text("x"), Text("$")])
        );
        for wrong in ["$3", "$10", "${1", "${x}", "${}", "$99999999999999999999"] {
            assert!(pieces(wrong).is_err(), "{wrong}");
        }
    }
}
