//! What a registry asks for when it knows nobody: `WWW-Authenticate` (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// The longest header that is read, in bytes.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// The most parameters of one challenge.
const PARAMETERS_MAX: usize = 32;

/// One way to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case: `basic`, `bearer`.
    pub scheme: String,
    /// By their names in lower case.
    pub parameters: BTreeMap<String, String>,
}

/// The challenges of a header, as far as it is well-formed.
#[must_use]
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    if header.len() > HEADER_BYTES_MAX {
        return found;
    }
    let mut rest = header.trim_start_matches(separator);
    while !rest.is_empty() {
        let (word, behind) = token(rest);
        if word.is_empty() {
            break;
        }
        let value = behind.trim_start().strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, behind)) = value_of(value.trim_start()) else {
                    break;
                };
                if challenge.parameters.len() == PARAMETERS_MAX {
                    break;
                }
                challenge
                    .parameters
                    .insert(word.to_ascii_lowercase(), value);
                rest = behind;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: BTreeMap::new(),
                });
                rest = behind;
            }
        }
        rest = rest.trim_start_matches(separator);
    }
    found
}

fn separator(character: char) -> bool {
    matches!(character, ' ' | '\t' | ',')
}

fn token(text: &str) -> (&str, &str) {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string, without its quotes, and what is behind it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, behind) = token(text);
        return (!word.is_empty()).then(|| (word.to_owned(), behind));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, quoted.get(index + 1..)?)),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str) -> Vec<String> {
        let challenges = parse(header);
        let text = |one: &Challenge| format!("{} {:?}", one.scheme, one.parameters);
        challenges.iter().map(text).collect()
    }

    #[test]
    fn challenges_are_told_apart() {
        assert_eq!(
            shown(
                r#"Bearer realm="https://a.example/token",service="r",scope="repository:x:pull,push""#
            ),
            [
                r#"bearer {"realm": "https://a.example/token", "scope": "repository:x:pull,push", "service": "r"}"#
            ]
        );
        assert_eq!(
            shown(r#"Basic realm="a \"b\" \\", Bearer realm=x , service = "y""#),
            [
                r#"basic {"realm": "a \"b\" \\"}"#,
                r#"bearer {"realm": "x", "service": "y"}"#
            ]
        );
        assert_eq!(shown("Negotiate, Basic"), ["negotiate {}", "basic {}"]);
    }

    #[test]
    fn what_is_malformed_ends_it() {
        for text in ["", ",,", "=x", "a=b", "\"", "é"] {
            assert_eq!(shown(text).len(), 0, "{text}");
        }
        for text in ["Bearer realm=\"x", "Bearer realm=", "Bearer realm=\"x\\"] {
            assert_eq!(shown(text), ["bearer {}"], "{text}");
        }
        assert!(parse(&"a".repeat(HEADER_BYTES_MAX + 1)).is_empty());
        let many: String = (0..100).map(|n| format!(", p{n}=1")).collect();
        assert_eq!(
            parse(&format!("Bearer{many}"))[0].parameters.len(),
            PARAMETERS_MAX
        );
    }
}
