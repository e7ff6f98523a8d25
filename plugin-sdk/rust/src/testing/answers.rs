//! What stands for the servers that a plugin under test asks over HTTP.

use super::host;
use crate::http::{Error, Request, Response};
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Answers the requests of a plugin under test.
#[derive(Clone, Default)]
pub struct Answers(Option<Rc<RefCell<Answering>>>);

type Answering = dyn FnMut(&Request) -> Result<Response, Error>;

impl Answers {
    /// Every request gets the answer that this gives.
    pub fn by(answer: impl FnMut(&Request) -> Result<Response, Error> + 'static) -> Self {
        Self(Some(Rc::new(RefCell::new(answer))))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answers").field(&self.0.is_some()).finish()
    }
}

/// The answer to a request of the call in progress.
pub(crate) fn answer(request: &Request) -> Result<Response, Error> {
    let answers = host(|host| {
        host.requests.push(request.clone());
        host.answers.clone()
    });
    match answers.0 {
        Some(answers) => (answers.borrow_mut())(request),
        None => Err(Error::Denied("nothing is granted".to_owned())),
    }
}
