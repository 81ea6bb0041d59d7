//! Errors of the client in words.

/// An error of the client for people: what the API server says, and for missing rights that rights are missing.
#[must_use]
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status)
            if status.is_forbidden() && status.message.contains(" cannot ") =>
        {
            format!("{} (grant this right with RBAC)", status.message)
        }
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        // The words of the decoder may quote what it could not read, and that may be a Secret.
        kube::Error::SerdeError(_) => "the answer cannot be read".to_owned(),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            text
        }
    }
}
