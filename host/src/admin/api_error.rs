//! What the API answers when it does not do what it was asked: a status, a code for programs, words
//! and a hint for people.

use crate::config::{BodyError, ConfigError, Mistake};
use crate::control::ControlError;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

/// Where versions are.
const VERSIONS: &str = "GET /api/v1/plugins/NAME lists the versions that are kept";

/// An answer that says no.
#[derive(Clone, Debug)]
pub(super) struct ApiError(Box<ErrorParts>);

#[derive(Clone, Debug)]
struct ErrorParts {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: String,
    mistakes: Vec<Mistake>,
    /// What is wrong with a file, as `tidemill check --json` tells it.
    of_file: Vec<Value>,
    header: Option<(HeaderName, &'static str)>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let (hint, mistakes, of_file, header) = (String::new(), Vec::new(), Vec::new(), None);
        Self(Box::new(ErrorParts { status, code, message: message.into(), hint, mistakes, of_file, header }))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.header = Some((name, value));
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ErrorParts { status, code, message, hint, mistakes, of_file, header } = *self.0;
        let mut error = json!({ "code": code, "message": message, "hint": hint });
        if !mistakes.is_empty() {
            error["errors"] = mistakes.into_iter().map(as_json).collect();
        }
        let mut answer = json!({ "error": error });
        if !of_file.is_empty() {
            answer["errors"] = of_file.into();
        }
        let mut response = (status, Json(answer)).into_response();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

fn as_json(mistake: Mistake) -> Value {
    json!({ "path": mistake.pointer, "message": mistake.message, "hint": mistake.hint.unwrap_or_default() })
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let (status, code, hint) = match &error {
            ControlError::NotFound(_) => {
                (StatusCode::NOT_FOUND, "not_found", "GET /api/v1/pipelines lists them")
            }
            ControlError::Taken(_) => (
                StatusCode::CONFLICT,
                "taken",
                "choose another name, or remove the pipeline first: DELETE /api/v1/pipelines/NAME",
            ),
            ControlError::Stopping(_) => {
                (StatusCode::CONFLICT, "stopping", "try again when its state is `stopped`")
            }
            ControlError::Running(_) => {
                (StatusCode::CONFLICT, "running", "POST /api/v1/pipelines/NAME/stop stops it")
            }
            ControlError::NotRunning(_) => {
                (StatusCode::CONFLICT, "not_running", "POST /api/v1/pipelines/NAME/start starts it")
            }
            ControlError::NothingKept(_) => {
                (StatusCode::NOT_FOUND, "not_found", "GET /api/v1/state lists what is")
            }
            ControlError::State(_) => (StatusCode::CONFLICT, "state", ""),
            ControlError::Refused(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "refused", "change its configuration, or the plugin")
            }
            ControlError::Open(_) => (StatusCode::CONFLICT, "not_opened", ""),
            ControlError::Hung(_) => (StatusCode::CONFLICT, "not_started", "try again, or look into the log"),
            ControlError::Wrong(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid",
                "nothing was changed; `tidemill check` shows the places",
            ),
            ControlError::NoFile => {
                (StatusCode::CONFLICT, "no_file", "POST /api/v1/pipelines adds a pipeline")
            }
            ControlError::Reloading => (StatusCode::CONFLICT, "reloading", "try again when they are done"),
            ControlError::NoPlugin(_) => {
                (StatusCode::NOT_FOUND, "not_found", "GET /api/v1/plugins lists those that are there")
            }
            ControlError::BadName(_) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "its name is that of a file, without `.wasm`")
            }
            ControlError::Unfit(_) => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "not_a_plugin",
                "send a component that keeps the contract; `tidemill plugin inspect` says what one has",
            ),
            ControlError::NoVersion(_) => (StatusCode::NOT_FOUND, "not_found", VERSIONS),
            ControlError::Version(_) => (StatusCode::CONFLICT, "version", VERSIONS),
            ControlError::Ended => (StatusCode::SERVICE_UNAVAILABLE, "ended", ""),
        };
        let mut refusal = Self::new(status, code, error.to_string()).hint(hint);
        if let ControlError::Wrong(errors) = &error {
            refusal.0.of_file = errors.iter().map(ConfigError::to_json).collect();
        }
        refusal
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let mistakes = match error {
            BodyError::NotJson(why) => {
                let message = format!("the body is not JSON: {why}");
                return Self::new(StatusCode::BAD_REQUEST, "not_json", message);
            }
            BodyError::Wrong(mistakes) => mistakes,
        };
        let told = mistakes.iter().map(|Mistake { pointer, message, .. }| match pointer.as_str() {
            "" => message.clone(),
            pointer => format!("{pointer}: {message}"),
        });
        let message = told.collect::<Vec<_>>().join("\n");
        let hint = mistakes.iter().find_map(|mistake| mistake.hint.clone()).unwrap_or_default();
        let mut refusal = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message).hint(hint);
        refusal.0.mistakes = mistakes;
        refusal
    }
}
