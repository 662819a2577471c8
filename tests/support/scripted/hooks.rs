//! What a test does to the requests of a model while it runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{Answer, Handler, Request, Step, lock};

/// What a hook does to a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// At once, before the body is read; without effect.
    Early(Step),
    /// Instead of the request's effect, when its body has been read.
    Instead(Step),
    /// After its effect, instead of the answer: the answer is lost.
    After(Step),
    /// After its effect, the answer changed.
    Changed(fn(Answer) -> Answer),
}

type Hook = Arc<dyn Fn(usize, &Request) -> Option<Fault> + Send + Sync>;

/// The hook of one server. Clones are the same one.
#[derive(Clone, Default)]
pub struct Hooks {
    hook: Arc<Mutex<Option<Hook>>>,
    /// Faults decided at the head, by the number of their request.
    faults: Arc<Mutex<HashMap<usize, Fault>>>,
}

impl Hooks {
    /// Sets the hook, instead of the one before. It is called with the number of the request (from 0,
    /// over all) and its head, before the body has come.
    pub fn set(&self, hook: impl Fn(usize, &Request) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// A handler that does what these hooks say, and else answers like `model`.
    pub fn before(
        &self,
        model: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> impl Handler {
        Hooked { hooks: self.clone(), model }
    }
}

struct Hooked<M> {
    hooks: Hooks,
    model: M,
}

impl<M: Fn(&Request) -> Answer + Send + Sync + 'static> Handler for Hooked<M> {
    fn at_head(&self, head: &Request) -> Option<Step> {
        let hook = lock(&self.hooks.hook).clone();
        match hook.and_then(|hook| hook(head.number, head))? {
            Fault::Early(step) => Some(step),
            fault => {
                lock(&self.hooks.faults).insert(head.number, fault);
                None
            }
        }
    }

    fn answer(&self, request: &Request) -> Step {
        let fault = lock(&self.hooks.faults).remove(&request.number);
        if let Some(Fault::Instead(step)) = fault {
            return step;
        }
        let answer = (self.model)(request);
        match fault {
            Some(Fault::After(step)) => step,
            Some(Fault::Changed(change)) => change(answer).into(),
            _ => answer.into(),
        }
    }
}
