//! The last word of a conversation, as clients read it from the error channel. Pure.

use super::protocol::Verdict;
use crate::api::status::ApiError;
use crate::pods::Ended;
use serde_json::json;

impl Verdict {
    /// What is written there; nothing is a good end.
    pub fn of(self, ended: &Ended) -> Vec<u8> {
        match self {
            Self::Status => status(ended),
            Self::Text => match ended {
                Ended::Exited(0) => String::new(),
                Ended::Exited(code) => terminated(*code),
                Ended::Lost(why) => why.clone(),
            }
            .into_bytes(),
        }
    }
}

fn terminated(code: i32) -> String {
    format!("command terminated with non-zero exit code: exit status {code}")
}

fn status(ended: &Ended) -> Vec<u8> {
    let status = match ended {
        Ended::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        Ended::Exited(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": terminated(*code),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Ended::Lost(why) => ApiError::internal(why).to_status(),
    };
    status.to_string().into_bytes()
}
