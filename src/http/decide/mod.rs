//! `/v1/decide` and `/v1/decide/batch`: the experiments that units are in.
//!
//! The common case costs condition checks, hashing and copying: everything that depends on the revision alone was made
//! when it was compiled ([`crate::eval::Environment`]). What takes longer (batches, explanations, large contexts) is worked
//! through on a blocking thread. With `revision` the answer is what that revision gave; only a viewer may ask that.

mod answer;

use std::{borrow::Cow, collections::BTreeSet};

use actix_web::{HttpRequest, HttpResponse, rt::task::spawn_blocking, web};
use serde_json::{Map, Value};

use self::answer::{Asked, Work};
use super::{
    error::ApiError,
    evaluation::{self, LIGHT_BYTES_MAX, Subject},
    fields::{Fields, Given, kind},
    state::HttpState,
};
use crate::eval::{Dialect, Environment, environment::Forced};

/// So many decisions take about half a millisecond; more are made on a blocking thread.
const LIGHT_DECISIONS_MAX: usize = 5_000;
/// What a decision of a batch counts as when it is to be explained: it takes that much longer, and more.
const EXPLAINED: usize = 10;

/// Fields of a single request, for whoever misspells one.
const SINGLE: &str = "user_key, env, context, experiments, explain, forced, dialect, revision";
/// Fields of a batch.
const BATCH: &str = "units, env, experiments, explain, dialect";
/// Fields of a batch's unit.
const UNIT: &str = "user_key, context, forced";

/// What a request says about all of its units.
struct Common {
    environment: Option<String>,
    dialect: Option<Dialect>,
    /// Sorted, each once; empty: all experiments.
    experiments: Vec<String>,
    explains: bool,
}

impl Common {
    fn take(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        let environment = fields.text("env")?.filter(|name| !name.is_empty());
        let mut experiments = fields.texts("experiments")?;
        experiments.sort_unstable();
        experiments.dedup();
        Ok(Self {
            environment: environment.map(Cow::into_owned),
            dialect: evaluation::dialect(fields)?,
            experiments,
            explains: fields.truth("explain")?,
        })
    }
}

/// A unit as it was sent.
struct Unit {
    user_key: String,
    context: Option<Map<String, Value>>,
    forced: Option<Map<String, Value>>,
}

impl Unit {
    fn take(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        let user_key = match fields.text("user_key")? {
            Some(key) if !key.is_empty() => key.into_owned(),
            Some(_) => return Err(fields.wrong("user_key", "is empty; name the unit")),
            None => return Err(fields.wrong("user_key", "is missing; name the unit")),
        };
        Ok(Self {
            user_key,
            context: fields.object("context")?,
            forced: fields.object("forced")?,
        })
    }

    /// The unit, with the variations it is to have found in this environment.
    fn asked(self, subject: &Subject, at: &str) -> Result<Asked, ApiError> {
        let forced = match self.forced {
            Some(forced) => resolve(&forced, subject, at)?,
            None => Forced::default(),
        };
        let attributes = evaluation::attributes(&self.user_key, self.context);
        Ok(Asked {
            user_key: self.user_key,
            attributes,
            forced,
        })
    }
}

/// Finds forced variations. An experiment that is not there is passed over: a tester's cookie outlives experiments.
fn resolve(forced: &Map<String, Value>, subject: &Subject, at: &str) -> Result<Forced, ApiError> {
    let environment = compiled(subject)?;
    let seen = seen(subject, environment);
    let variation = |(key, named): (&String, &Value)| {
        let position = environment.find(key)?;
        if seen.as_ref().is_some_and(|seen| !seen.contains(&position)) {
            return None;
        }
        let decision = &environment.decisions()[position];
        let variation = decision.variation(named).ok_or_else(|| {
            let known: Vec<&str> = decision.variation_keys().collect();
            let reason = format!(
                "names no variation; use one of {} or a position from 0",
                known.join(", ")
            );
            ApiError::bad_request(format!("{at}forced.{key}"), reason)
        });
        Some(variation.map(|variation| (position, variation)))
    };
    forced.iter().filter_map(variation).collect()
}

/// `GET|POST /v1/decide`.
pub(super) async fn decide(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let mut fields = evaluation::fields(&request, payload, &state).await?;
    let is_light = fields.bytes() <= LIGHT_BYTES_MAX;
    let common = Common::take(&mut fields)?;
    let unit = Unit::take(&mut fields)?;
    // Looked for where something is left alone: most requests name no revision, and there are many of them.
    let revision = if fields.is_empty() {
        None
    } else {
        fields.number("revision")?
    };
    fields.finish(SINGLE)?;
    let (environment, dialect) = (common.environment.as_deref(), common.dialect);
    let subject = match revision {
        None => evaluation::subject(&state, &request, environment, dialect).await?,
        Some(revision) => {
            evaluation::past(&state, &request, environment, dialect, revision).await?
        }
    };
    let asked = unit.asked(&subject, "")?;
    let work = work(subject, common, vec![asked])?;
    if is_light && work.decisions() <= LIGHT_DECISIONS_MAX && !work.explains() {
        let body = work.single();
        return Ok(evaluation::respond(work.subject(), body));
    }
    blocking(work, Work::single).await
}

/// `POST /v1/decide/batch`.
pub(super) async fn batch(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let mut fields = evaluation::fields(&request, payload, &state).await?;
    let common = Common::take(&mut fields)?;
    let units = units(&mut fields, state.shared.evaluation.max_batch_units)?;
    fields.finish(BATCH)?;
    let environment = common.environment.as_deref();
    let subject = evaluation::subject(&state, &request, environment, common.dialect).await?;
    let asked = units.into_iter().enumerate();
    let asked = asked.map(|(at, unit)| unit.asked(&subject, &format!("units[{at}].")));
    let asked = asked.collect::<Result<_, _>>()?;
    let work = work(subject, common, asked)?;
    let limit = state.shared.evaluation.max_decisions;
    let each = if work.explains() { EXPLAINED } else { 1 };
    let decisions = work.decisions().saturating_mul(each);
    if decisions > limit {
        let explained = if work.explains() {
            format!(" (one that is explained counts as {EXPLAINED})")
        } else {
            String::new()
        };
        let reason = format!(
            "with these experiments are {decisions} decisions{explained}, more than `evaluation.max_decisions` = {limit}; send fewer units, or name fewer `experiments`"
        );
        return Err(ApiError::bad_request("units", reason));
    }
    blocking(work, Work::batch).await
}

/// Does the work on a blocking thread.
async fn blocking(work: Work, answer: fn(&Work) -> Vec<u8>) -> Result<HttpResponse, ApiError> {
    let done = spawn_blocking(move || {
        let body = answer(&work);
        (work, body)
    });
    let (work, body) = done.await.or(Err(ApiError::Internal))?;
    Ok(evaluation::respond(work.subject(), body))
}

/// Takes the units out of a batch.
fn units(fields: &mut Fields<'_>, limit: usize) -> Result<Vec<Unit>, ApiError> {
    let items = match fields.take("units") {
        Some(Given::Json(Value::Array(items))) => items,
        Some(Given::Json(other)) => {
            return Err(fields.wrong("units", format!("is {}, not a list", kind(&other))));
        }
        _ => return Err(fields.wrong("units", "is missing; send a list of units")),
    };
    if items.len() > limit {
        let reason = format!(
            "are {}, more than `evaluation.max_batch_units` = {limit}; send several batches",
            items.len()
        );
        return Err(fields.wrong("units", reason));
    }
    let unit = |(at, item): (usize, Value)| match item {
        Value::Object(members) => {
            let mut fields = Fields::inside(members, format!("units[{at}]."));
            let unit = Unit::take(&mut fields)?;
            fields.finish(UNIT)?;
            Ok(unit)
        }
        other => {
            let reason = format!("is {}, not an object", kind(&other));
            Err(ApiError::bad_request(format!("units[{at}]"), reason))
        }
    };
    items.into_iter().enumerate().map(unit).collect()
}

/// The compiled environment, which [`evaluation::subject`] has seen to.
fn compiled(subject: &Subject) -> Result<&Environment, ApiError> {
    let compiled = subject.snapshot.evaluator(subject.dialect);
    compiled.ok_or(ApiError::Internal)
}

/// Positions of the decisions that the caller may see; `None`: all.
fn seen(subject: &Subject, environment: &Environment) -> Option<BTreeSet<usize>> {
    let visibility = subject.visibility.as_ref()?;
    let view = subject.snapshot.view(visibility);
    let seen = view.decisions(|| environment.visible(|projects| visibility.sees_feature(projects)));
    Some(seen.iter().copied().collect())
}

fn work(subject: Subject, common: Common, units: Vec<Asked>) -> Result<Work, ApiError> {
    let environment = compiled(&subject)?;
    let seen = seen(&subject, environment);
    if seen.is_some() && common.explains {
        // An explanation names what stands in the way, whosever it is.
        let reason = "explanations need a token for all projects".to_owned();
        return Err(ApiError::Forbidden(reason));
    }
    let named = (!common.experiments.is_empty()).then(|| {
        let names = common.experiments.iter();
        names.filter_map(|name| environment.find(name))
    });
    let only: Option<Vec<usize>> = match (named, seen) {
        (Some(named), Some(seen)) => Some(named.filter(|at| seen.contains(at)).collect()),
        (Some(named), None) => Some(named.collect()),
        (None, seen) => seen.map(|seen| seen.into_iter().collect()),
    };
    Ok(Work {
        subject,
        experiments: common.experiments,
        only,
        explains: common.explains,
        units,
    })
}
