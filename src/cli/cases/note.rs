//! Who looks after a case, and what people want each other to know about it: nothing of it moves the order.

use clap::Args;
use serde::Serialize;

use super::{TRIES, moved, order, which};
use crate::cli::orders::trouble;
use crate::cli::output::{CliError, Output};
use crate::cli::values;
use crate::domain::event::{DecidedBy, EventData, EventType};
use crate::domain::{CaseKind, LoggedEvent, OrderId};
use crate::ports::{Case, CaseNote, Store, Written};

/// Which case, and who speaks.
#[derive(Debug, Clone, Args)]
pub struct NoteArgs {
    /// The shop's order id
    #[arg(value_parser = values::order_id)]
    pub id: OrderId,
    /// Who does it
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub by: String,
    /// Which case, where the order has several
    #[arg(long, value_name = "KIND", value_parser = values::case_kind)]
    pub kind: Option<CaseKind>,
}

/// What a person does.
pub(super) enum Action {
    Take { over_from: Option<String> },
    Release,
    Note { text: String },
}

/// What was done.
#[derive(Serialize)]
struct Noted<'a> {
    order_id: &'a OrderId,
    kind: CaseKind,
    owner: Option<&'a str>,
    by: &'a str,
}

impl Action {
    /// Who looks after the case from now on, and what is said of it.
    fn on(&self, case: &Case, about: &NoteArgs) -> Result<(Option<String>, String), CliError> {
        let (id, by) = (&about.id, &about.by);
        match (self, case.owner.as_deref()) {
            (Self::Take { over_from }, Some(owner)) if owner != by && over_from.as_deref() != Some(owner) => {
                Err(CliError::failed(format!(
                    "{owner} looks after the case {} of order {id}: to take it over, add --over-from {owner:?}",
                    case.key.kind.as_str()
                )))
            }
            (Self::Take { over_from: Some(from) }, None) => Err(CliError::failed(format!(
                "--over-from: nobody looks after the case {} of order {id}, not {from} either: leave it out",
                case.key.kind.as_str()
            ))),
            (Self::Take { .. }, Some(owner)) if owner != by => {
                Ok((Some(by.clone()), format!("takes the case over from {owner}")))
            }
            (Self::Take { .. }, _) => Ok((Some(by.clone()), "takes the case".to_owned())),
            (Self::Release, Some(owner)) if owner != by => Ok((None, format!("releases the case, which {owner} had"))),
            (Self::Release, Some(_)) => Ok((None, "releases the case".to_owned())),
            (Self::Release, None) => {
                Err(CliError::failed(format!("nobody looks after the case {} of order {id}", case.key.kind.as_str())))
            }
            (Self::Note { text }, _) => Ok((case.owner.clone(), text.clone())),
        }
    }
}

/// Does it, with an entry in the order's log that names the person.
pub(super) async fn note(store: &dyn Store, about: &NoteArgs, action: &Action, output: Output) -> Result<(), CliError> {
    for _ in 0..TRIES {
        let order = order(store, &about.id).await?;
        let case = which(store, &about.id, about.kind).await?;
        let kind = case.key.kind;
        let (owner, said) = action.on(&case, about)?;
        let data = EventData {
            cause: Some(kind.as_str().to_owned()),
            decided_by: Some(Box::new(DecidedBy { name: about.by.clone(), evidence: said.clone() })),
            ..EventData::aside(order.state, order.deadline_at)
        };
        let at = store.now().await.map_err(|error| trouble(&error))?;
        let entry =
            LoggedEvent { order_id: about.id.clone(), version: order.version, kind: EventType::CaseNoted, at, data };
        let note = CaseNote { key: case.key, was: case.owner, owner: owner.clone(), entry };
        if store.note(&note).await.map_err(|error| trouble(&error))? != Written::Stored {
            continue;
        }
        if output.json {
            let (order_id, owner, by) = (&about.id, owner.as_deref(), about.by.as_str());
            return output.object(&Noted { order_id, kind, owner, by });
        }
        return output.line(format_args!("order {}, case {}: {} {said}", about.id, kind.as_str(), about.by));
    }
    Err(moved(&about.id))
}
