//! Resolving a review: which sort of record it is about, and what its resolution does to that and to companies.

use domain::company::merge_in_review;
use domain::prospect::ResolveProspect;
use domain::review::{ProspectResolution, Resolve};
use domain::{CompanyCommand, CompanyError, Prospect, ProspectCommand, ProspectError, Status};
use event_store::append::Refused;
use event_store::executor::ExecuteError;
use event_store::{Answer, Request};
use serde_json::Map;
use service_kit::problem::Problem;
use uuid::Uuid;

use crate::carry_out::Executors;
use crate::problems::{not_carried_out, not_for_this_record, of_create, prospect_error, to_assign};

impl Executors {
    /// Resolves the review of the record `id`. The answer speaks of that record; its position includes what was done to others.
    ///
    /// # Errors
    /// What the client is to be told.
    pub async fn resolve(&self, id: Uuid, resolve: Resolve, request: &Request) -> Result<Answer, Problem> {
        let prospect = self.loaded::<Prospect>(id, request).await?;
        if prospect.status == Status::Unregistered {
            self.resolve_company(id, resolve, request).await
        } else {
            // Whether the company is there is another record's matter, and looked at before: a company that is restored meanwhile
            // does no harm.
            let deleted_company = self.deleted(prospect.company_id, request).await?;
            self.resolve_prospect(id, resolve, deleted_company, request).await
        }
    }

    async fn resolve_company(&self, id: Uuid, resolve: Resolve, request: &Request) -> Result<Answer, Problem> {
        match resolve {
            Resolve::Leave => {
                match self.companies.execute(id, CompanyCommand::LeaveAlone, request, |_| Map::new()).await {
                    Ok(answer) => Ok(answer),
                    Err(error) => Err(self.company_problem(error, request).await),
                }
            }
            Resolve::Merge(merge) => self.merge_by(id, merge.into, request, merge_in_review).await,
            // Said of what is there only: an id that nobody has gets the answer of an unknown one.
            Resolve::Assign { .. } | Resolve::Create(_) => {
                match self.loaded::<domain::Company>(id, request).await?.status {
                    Status::Unregistered => Err(Problem::not_found()),
                    _ => Err(not_for_this_record("company", "merge or leave")),
                }
            }
        }
    }

    async fn resolve_prospect(
        &self,
        id: Uuid,
        resolve: Resolve,
        deleted_company: Option<Uuid>,
        request: &Request,
    ) -> Result<Answer, Problem> {
        let command = |resolution| ProspectCommand::Resolve(ResolveProspect { resolution, deleted_company });
        let done = match resolve {
            Resolve::Leave => {
                let leave = command(ProspectResolution::LeftAlone);
                self.prospects.execute(id, leave, request, |_| Map::new()).await
            }
            Resolve::Assign { company_id } => {
                let assign = command(ProspectResolution::Assigned { company_id });
                match self.prospects.execute(id, assign, request, |_| Map::new()).await {
                    Err(ExecuteError::Refused(Refused::ClaimMissing { .. })) => {
                        return Err(self.not_assignable(company_id, request).await);
                    }
                    done => done,
                }
            }
            Resolve::Create(register) => {
                let company_id = Uuid::now_v7();
                let details = Map::from_iter([("company_id".to_owned(), company_id.to_string().into())]);
                let assign = command(ProspectResolution::Created { company_id });
                let new = (company_id, CompanyCommand::Register(*register));
                match self.prospects.execute_and_create((id, assign), &self.companies, new, request, details).await {
                    Ok(Err(error)) => return Err(of_create(error)),
                    Ok(Ok(answer)) => Ok(answer),
                    Err(error) => Err(error),
                }
            }
            Resolve::Merge(_) => return Err(not_for_this_record("prospect", "assign, create or leave")),
        };
        done.map_err(|error: ExecuteError<ProspectError>| not_carried_out(error, prospect_error))
    }

    /// The company that a prospect has, if that is deleted, or was merged into one that is.
    async fn deleted(&self, company_id: Option<Uuid>, request: &Request) -> Result<Option<Uuid>, Problem> {
        let Some(id) = company_id else { return Ok(None) };
        let (_, status) = self.end_of_merges(id, request).await?;
        Ok((status == Status::Deleted).then_some(id))
    }

    /// Why a prospect cannot be given this company, and what can be done instead.
    async fn not_assignable(&self, company_id: Uuid, request: &Request) -> Problem {
        let why = match self.end_of_merges(company_id, request).await {
            Ok((end, Status::Live | Status::Merged { .. })) if end != company_id => CompanyError::Merged { into: end },
            Ok((_, Status::Deleted)) => CompanyError::Deleted,
            Ok(_) => CompanyError::NotFound,
            Err(problem) => return problem,
        };
        to_assign(company_id, &why)
    }
}
