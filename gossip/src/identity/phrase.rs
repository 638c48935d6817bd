//! The phrase: the one secret that people type.
//!
//! Holding it means root on every desktop's Docker, so a guessable one is refused here, before anything derives
//! from it. Must never show the phrase: not in `Debug`, not in an error.

use std::fmt;

use rand::seq::IndexedRandom;
use zeroize::Zeroizing;

/// Words in a generated phrase. The list has 2,048 words, 11 bits each: six make 66 bits, which is out of reach of
/// anyone who has to pay for one argon2id stretch (64 MiB, three passes) a guess.
const GENERATED_WORDS: usize = 6;
/// The longest phrase in bytes. Beyond it a phrase gains nothing, and estimating its strength gets slow.
const LONGEST_BYTES: usize = 256;
/// The estimator looks at this many characters. Its cost grows steeply with length, and a phrase that is weak in
/// its first 100 characters is not worth accepting for the rest.
const ESTIMATED_CHARS: usize = 100;
/// The least acceptable zxcvbn score (0 to 4). 3 is "safely unguessable: moderate protection from an offline
/// attack on a slow hash" in zxcvbn's own words.
const LEAST_SCORE: u8 = 3;
/// The least acceptable number of guesses, as a power of ten. With the stretch at roughly ten guesses a second on a
/// desktop core, 10^10 is 30 core-years.
const LEAST_GUESSES_LOG10: f64 = 10.0;

/// The secret that the nodes of a cluster share. Redacted in `Debug`, overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Phrase(Zeroizing<String>);

/// Whether a weak phrase is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// Refuse a phrase that can be guessed.
    Checked,
    /// Take any phrase that is not empty: the user said so.
    Forced,
}

/// Why a phrase was not accepted. Never holds the phrase.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PhraseError {
    #[error("the phrase is empty: give one, or leave it out on the first desktop to have one made")]
    Empty,
    #[error("the phrase is {bytes} bytes long: the most is {LONGEST_BYTES}")]
    TooLong { bytes: usize },
    #[error("the phrase contains a control character: type it as plain words")]
    ControlCharacter,
    #[error(
        "the phrase is too easy to guess ({reason}): leave it out to have a good one made, or use five or more unrelated words"
    )]
    Weak { reason: String },
}

impl Phrase {
    /// Makes a phrase of six random words, joined by `-`: 66 bits.
    #[must_use]
    pub fn generate() -> Self {
        let words = bip39::Language::English.word_list();
        // Seeded by the operating system and cryptographically secure.
        let mut random = rand::rng();
        // Enough for the longest words, so that growing leaves no copy behind.
        let mut phrase = Zeroizing::new(String::with_capacity(GENERATED_WORDS * 9));
        for word in (0..GENERATED_WORDS).filter_map(|_| words.choose(&mut random)) {
            if !phrase.is_empty() {
                phrase.push('-');
            }
            phrase.push_str(word);
        }
        Self(phrase)
    }

    /// Takes what a person typed or a file held. White space around it is dropped.
    ///
    /// # Errors
    /// Says what is wrong and what to do, without repeating the phrase.
    pub fn parse(text: &str, strength: Strength) -> Result<Self, PhraseError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(PhraseError::Empty);
        }
        if text.len() > LONGEST_BYTES {
            return Err(PhraseError::TooLong { bytes: text.len() });
        }
        if text.chars().any(char::is_control) {
            return Err(PhraseError::ControlCharacter);
        }
        if strength == Strength::Checked {
            refuse_weak(text)?;
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The phrase itself, to be typed on the other desktops. Never log it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn refuse_weak(text: &str) -> Result<(), PhraseError> {
    let sample: Zeroizing<String> = Zeroizing::new(text.chars().take(ESTIMATED_CHARS).collect());
    // The tool's own name is the first thing that an attacker tries.
    let estimate = zxcvbn::zxcvbn(&sample, &["gaggle", "geese", "goose", "cluster"]);
    if u8::from(estimate.score()) >= LEAST_SCORE && estimate.guesses_log10() >= LEAST_GUESSES_LOG10 {
        return Ok(());
    }
    // The warnings are fixed sentences, they do not quote what was typed.
    let reason = estimate.feedback().and_then(|feedback| feedback.warning()).map_or_else(
        || format!("about 10^{:.0} guesses", estimate.guesses_log10()),
        |warning| warning.to_string().trim_end_matches('.').to_owned(),
    );
    Err(PhraseError::Weak { reason })
}

impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phrase(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_phrase_has_six_words_passes_its_own_check_and_is_new_each_time() {
        let one = Phrase::generate();
        let two = Phrase::generate();
        assert_eq!(one.as_str().split('-').count(), GENERATED_WORDS);
        assert_ne!(one, two);
        for _ in 0..20 {
            let made = Phrase::generate();
            assert_eq!(Phrase::parse(made.as_str(), Strength::Checked).as_ref(), Ok(&made));
        }
    }

    #[test]
    fn what_can_be_guessed_is_refused_and_never_repeated() {
        let weak = [
            "dragon1",
            "hunter2",
            "qwertyuiop",
            "letmein123",
            "gaggle",
            "gaggle-gaggle",
            "aaaaaaaaaaaaaaaaaaaaaaaa",
            "12345678901234567890",
            "2024-01-01",
            "P@ssw0rd",
            "geese",
        ];
        for text in weak {
            let refused = Phrase::parse(text, Strength::Checked).unwrap_err();
            assert!(matches!(refused, PhraseError::Weak { .. }), "{text}: {refused}");
            assert!(!refused.to_string().contains(text), "{refused}");
            assert_eq!(Phrase::parse(text, Strength::Forced).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_cannot_be_guessed_is_taken() {
        for text in
            ["correct-horse-battery-staple-lantern", "Xq7#vNp2!rTz9", "trübe Gänse fliegen leise südwärts"]
        {
            assert_eq!(Phrase::parse(&format!("  {text}\n"), Strength::Checked).unwrap().as_str(), text);
        }
    }

    #[test]
    fn no_force_makes_nonsense_a_phrase() {
        assert_eq!(Phrase::parse("  \n", Strength::Forced), Err(PhraseError::Empty));
        assert_eq!(
            Phrase::parse(&"x".repeat(257), Strength::Forced),
            Err(PhraseError::TooLong { bytes: 257 })
        );
        assert_eq!(Phrase::parse("a\u{0}b", Strength::Forced), Err(PhraseError::ControlCharacter));
    }

    #[test]
    fn debug_shows_nothing() {
        let phrase = Phrase::parse("correct-horse-battery-staple-lantern", Strength::Checked).unwrap();
        assert_eq!(format!("{phrase:?}"), "Phrase(redacted)");
    }
}
