//! The answering side of anti-entropy. Takes any bytes; every answer is bounded.

use super::Intent;
use super::compare::WANTS;
use super::wire::{Answer, BUDGET_BYTES, Question, decode, encode};

/// Serves a peer's question.
pub async fn answer(intent: &Intent, request: &[u8]) -> Vec<u8> {
    let answer = match decode(request) {
        Ok(question) => serve(intent, question).await,
        Err(error) => Answer::Refused(error.to_string()),
    };
    encode(&answer).or_else(|error| encode(&Answer::Refused(error.to_string()))).unwrap_or_default()
}

async fn serve(intent: &Intent, question: Question) -> Answer {
    match question {
        Question::Compare { root } => {
            let mut index = intent.index();
            if index.root() == root { Answer::Same } else { Answer::Differs(index.hashes()) }
        }
        Question::Bucket { bucket, after } => {
            let index = intent.index();
            let mut page = index.page(bucket, after.as_deref());
            let mut entries = Vec::new();
            let mut bytes = 0;
            for (key, incarnation, heads) in page.by_ref() {
                // A byte of a hash takes up to two in MessagePack.
                bytes += key.len() + 16 + heads.len() * 66;
                entries.push((key.clone(), incarnation, heads.clone()));
                if bytes > BUDGET_BYTES {
                    break;
                }
            }
            let more = page.next().is_some();
            Answer::Entries { entries, more }
        }
        Question::Pull { wants } if wants.len() > WANTS => Answer::Refused("too many wants".to_owned()),
        Question::Pull { wants } => match intent.since(wants, BUDGET_BYTES).await {
            Ok(sent) => Answer::Frames {
                frames: sent.frames.into_iter().map(|(key, frame, all)| (key, frame.into(), all)).collect(),
                answered: u32::try_from(sent.answered).unwrap_or(u32::MAX),
            },
            Err(error) => Answer::Refused(error.to_string()),
        },
        Question::Push { frames } => {
            let frames = frames.into_iter().map(|(key, frame)| (key, frame.into_vec())).collect();
            match intent.apply_many(frames).await {
                Ok(results) => {
                    let refused = results.iter().filter_map(|result| result.as_ref().err());
                    let refused = refused.inspect(|error| {
                        tracing::warn!(%error, "a change that a peer sent is not taken");
                    });
                    Answer::Taken { refused: u32::try_from(refused.count()).unwrap_or(u32::MAX) }
                }
                Err(error) => Answer::Refused(error.to_string()),
            }
        }
    }
}
