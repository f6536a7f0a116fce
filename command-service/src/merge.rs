//! Merging two companies and undoing it: both change, or neither (decision 6).

use std::sync::atomic::{AtomicBool, Ordering};

use domain::company::{Merge, STANDS_FOR_MAX, merge, unmerge};
use domain::{Company, CompanyError, Record, Status};
use event_store::executor::ExecuteError;
use event_store::load::LoadError;
use event_store::{Answer, Request};
use service_kit::problem::{Code, Problem};
use uuid::Uuid;

use crate::carry_out::Executors;
use crate::problems::{company_error, load_error, not_carried_out, primary_of_merge, primary_of_unmerge};

/// How often an undoing begins again because the company was merged into another one meanwhile.
const ATTEMPTS_MAX: usize = 3;

impl Executors {
    /// Merges the company `id` into `into`. The answer speaks of the merged one, with a position that includes both.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn merge(&self, id: Uuid, into: Uuid, request: &Request) -> Result<Answer, Problem> {
        self.merge_by(id, into, request, merge).await
    }

    /// Merges as `rule` says: it is given primary and secondary.
    ///
    /// # Errors
    /// What the client is to be told.
    pub(crate) async fn merge_by(
        &self,
        id: Uuid,
        into: Uuid,
        request: &Request,
        rule: impl Fn((Uuid, &Company), (Uuid, &Company)) -> Result<Merge, CompanyError>,
    ) -> Result<Answer, Problem> {
        let decide = |[secondary, primary]: [&Company; 2]| {
            rule((into, primary), (id, secondary)).map(|both| [both.secondary, both.primary])
        };
        match self.companies.execute_both([id, into], request, decide).await {
            Ok(answer) => Ok(answer),
            Err(ExecuteError::Domain(CompanyError::Primary { id: primary, why })) => {
                let end = self.stands_for_merged(&why, request).await?;
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
        match self.stands_for_merged(&refused, request).await {
            Ok(Some(into)) => company_error(CompanyError::Merged { into }),
            Ok(None) => company_error(refused),
            Err(problem) => problem,
        }
    }

    /// Where a company is that was merged, if that is why it refuses.
    async fn stands_for_merged(&self, refused: &CompanyError, request: &Request) -> Result<Option<Uuid>, Problem> {
        let CompanyError::Merged { into } = refused else { return Ok(None) };
        Ok(Some(self.end_of_merges(*into, request).await?.0))
    }

    /// The company that stands for this one, itself if it was not merged, and what became of it.
    pub(crate) async fn end_of_merges(&self, id: Uuid, request: &Request) -> Result<(Uuid, Status), Problem> {
        let mut end = id;
        let mut status = self.loaded::<Company>(end, request).await?.status;
        // No chain is longer than the companies that one stands for.
        for _ in 0..STANDS_FOR_MAX {
            let Status::Merged { into } = status else { break };
            end = into;
            status = self.loaded::<Company>(end, request).await?.status;
        }
        Ok((end, status))
    }

    async fn merged_into(&self, id: Uuid, request: &Request) -> Result<Option<Uuid>, Problem> {
        Ok(match self.loaded::<Company>(id, request).await?.status {
            Status::Merged { into } => Some(into),
            Status::Unregistered | Status::Live | Status::Deleted => None,
        })
    }

    /// A record as the log has it.
    pub(crate) async fn loaded<R: Record>(&self, id: Uuid, request: &Request) -> Result<R, Problem> {
        let load = self.store.loader().load::<R>(request.tenant_id, id);
        let late = |_| Err(LoadError::Unavailable("no answer in time".to_owned()));
        let loaded = tokio::time::timeout_at(request.deadline.into(), load).await.unwrap_or_else(late);
        loaded.map(|loaded| loaded.state).map_err(load_error)
    }
}
