//! Regular expressions of schemas. They are written for Go's RE2; the engine here is linear in the text, too.

use regex::{Regex, RegexBuilder};

/// Memory that one compiled pattern may take.
const COMPILED_BYTES: usize = 256 << 10;
const PATTERN_BYTES: usize = 64 * 1024;

/// A pattern, as it was written and as it is asked.
#[derive(Debug)]
pub struct Pattern {
    pub text: String,
    regex: Regex,
}

impl Pattern {
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// # Errors
/// What is wrong with the pattern.
pub fn compile(text: &str) -> Result<Pattern, String> {
    if text.len() > PATTERN_BYTES {
        return Err(format!("it is longer than {PATTERN_BYTES} bytes"));
    }
    let regex = RegexBuilder::new(&translated(text))
        .size_limit(COMPILED_BYTES)
        .dfa_size_limit(COMPILED_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => format!("it takes more than {COMPILED_BYTES} bytes of memory"),
            // The last line says what is wrong, the others show where.
            error => error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })?;
    Ok(Pattern { text: text.to_owned(), regex })
}

/// The same in this engine's syntax: there `\d`, `\w` and `\s` stand for letters of all scripts, and signs in classes may
/// be operators.
fn translated(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut letters = text.chars().peekable();
    let mut in_class = false;
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => {
                let escaped = letters.next();
                match (escaped, in_class) {
                    (Some('d'), true) => out.push_str("0-9"),
                    (Some('d'), false) => out.push_str("[0-9]"),
                    (Some('w'), true) => out.push_str("0-9A-Za-z_"),
                    (Some('w'), false) => out.push_str("[0-9A-Za-z_]"),
                    (Some('s'), true) => out.push_str("\\t\\n\\f\\r "),
                    (Some('s'), false) => out.push_str("[\\t\\n\\f\\r ]"),
                    (Some('D'), _) => out.push_str("[^0-9]"),
                    (Some('W'), _) => out.push_str("[^0-9A-Za-z_]"),
                    (Some('S'), _) => out.push_str("[^\\t\\n\\f\\r ]"),
                    (Some('b'), false) => out.push_str("(?-u:\\b)"),
                    (escaped, _) => {
                        out.push('\\');
                        out.extend(escaped);
                    }
                }
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                for first in ['^', ']'] {
                    if letters.next_if_eq(&first).is_some() {
                        out.push_str(if first == ']' { "\\]" } else { "^" });
                    }
                }
            }
            '[' if letters.peek() == Some(&':') => {
                // `[:alpha:]`, to its own end.
                out.push('[');
                for letter in letters.by_ref() {
                    out.push(letter);
                    if letter == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' if in_class => {
                out.push('\\');
                out.push(letter);
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, expected) in [
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "* * * * */5", true),
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "0 * * * *x", false),
            (r"^\d$", "٣", false),
            (r"^[\w.-]+$", "a_b.c-1", true),
            (r"^[\w]+$", "ä", false),
            (r"^[[]a$", "[a", true),
            (r"^[&~]+$", "&&~", true),
            (r"^[]a]$", "]", true),
            (r"^[^\s]+$", "a b", false),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^.$", "ä", true),
            (r"\bcat\b", "a cat", true),
            ("^[a-z]([-a-z0-9]*[a-z0-9])?$", "my-name", true),
        ] {
            assert_eq!(compile(pattern).unwrap().matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_cannot_be_compiled_or_would_take_all_memory_is_refused() {
        assert!(compile("(a").unwrap_err().contains("unclosed group"));
        assert!(compile("(?=a)").is_err());
        assert!(compile("((a{1000}){1000}){1000}").unwrap_err().contains("memory"));
        assert!(compile(&"a".repeat(PATTERN_BYTES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_an_error(text in "[\\[\\]\\\\()*+?{}|^$.a-c0-9&~:,dws-]{0,30}") {
            if let Ok(pattern) = compile(&text) {
                pattern.matches("abc 123");
            }
        }
    }
}
