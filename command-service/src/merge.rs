//! Merging two companies and undoing it: both change, or neither (decision 6).

use std::sync::atomic::{AtomicBool, Ordering};

use domain::company::{STANDS_FOR_MAX, merge, unmerge};
use domain::{Company, CompanyError, Status};
use event_store::executor::ExecuteError;
use event_store::load::LoadError;
use event_store::{Answer, Request};
use service_kit::problem::{Code, Problem};
use uuid::Uuid;

use crate::carry_out::Executors;
use crate::problems::{company_error, not_carried_out, primary_of_merge, primary_of_unmerge};

/// How often an undoing begins again because the company was merged into another one meanwhile.
const ATTEMPTS_MAX: usize = 3;

impl Executors {
    /// Merges the company `id` into `into`. The answer speaks of the merged one, with a position that includes both.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn merge(&self, id: Uuid, into: Uuid, request: &Request) -> Result<Answer, Problem> {
        let decide = |[secondary, primary]: [&Company; 2]| {
            merge((into, primary), (id, secondary)).map(|both| [both.secondary, both.primary])
        };
        match self.companies.execute_both([id, into], request, decide).await {
            Ok(answer) => Ok(answer),
            Err(ExecuteError::Domain(CompanyError::Primary { id: primary, why })) => {
                let end = self.end_of_merges(&why, request).await?;
                Err(primary_of_merge(id, primary, end, *why))
            }
            Err(error) => Err(self.company_problem(error, request).await),
        }
    }

    /// Takes the company `id` out of the one that it was merged into. One that is not merged stays as it is.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn unmerge(&self, id: Uuid, request: &Request) -> Result<Answer, Problem> {
        for _ in 0..ATTEMPTS_MAX {
            // Which company is the other one stands in the first.
            let into = self.merged_into(id, request).await?;
            // Without another one there is nothing to undo; whether it was undone before under this key, the receipt tells.
            let primary_id = into.unwrap_or(id);
            let moved = AtomicBool::new(false);
            let decide = |[secondary, primary]: [&Company; 2]| {
                if let Status::Merged { into } = secondary.status
                    && into != primary_id
                {
                    moved.store(true, Ordering::Relaxed);
                    return Err(CompanyError::Merged { into });
                }
                unmerge(primary, (id, secondary)).map(|both| [both.secondary, both.primary])
            };
            match self.companies.execute_both([id, primary_id], request, decide).await {
                Ok(answer) => return Ok(answer),
                Err(ExecuteError::Domain(CompanyError::Merged { .. })) if moved.load(Ordering::Relaxed) => {}
                Err(ExecuteError::Domain(CompanyError::Primary { id, why })) => {
                    return Err(primary_of_unmerge(id, *why));
                }
                Err(error) => return Err(self.company_problem(error, request).await),
            }
        }
        Err(Problem::new(Code::Conflict, "the company is merged again and again meanwhile; try again"))
    }

    /// What the client is told of a company's refusal. A merged one names the company that stands for it now, which may be further than
    /// the one that it was merged into.
    pub(crate) async fn company_problem(&self, error: ExecuteError<CompanyError>, request: &Request) -> Problem {
        let ExecuteError::Domain(refused) = error else { return not_carried_out(error, company_error) };
        match self.end_of_merges(&refused, request).await {
            Ok(Some(into)) => company_error(CompanyError::Merged { into }),
            Ok(None) => company_error(refused),
            Err(problem) => problem,
        }
    }

    /// Where a company is that was merged, if that is why it refuses.
    async fn end_of_merges(&self, refused: &CompanyError, request: &Request) -> Result<Option<Uuid>, Problem> {
        let CompanyError::Merged { into } = refused else { return Ok(None) };
        let mut end = *into;
        // No chain is longer than the companies that one stands for.
        for _ in 0..STANDS_FOR_MAX {
            match self.merged_into(end, request).await? {
                Some(into) => end = into,
                None => break,
            }
        }
        Ok(Some(end))
    }

    async fn merged_into(&self, id: Uuid, request: &Request) -> Result<Option<Uuid>, Problem> {
        let load = self.store.loader().load::<Company>(request.tenant_id, id);
        let late = |_| Err(LoadError::Unavailable("no answer in time".to_owned()));
        let loaded = tokio::time::timeout_at(request.deadline.into(), load).await.unwrap_or_else(late);
        match loaded {
            Ok(loaded) => Ok(match loaded.state.status {
                Status::Merged { into } => Some(into),
                Status::Unregistered | Status::Live | Status::Deleted => None,
            }),
            Err(error) => Err(not_carried_out(ExecuteError::Load(error), company_error)),
        }
    }
}
