//! What can be listed: which table, which filters, which sorts. Every filter and sort here has its index in
//! `migrations/sql/generation/company_prospect_indexes.sql`.

use super::filter::{Filter, Kind};
use super::sort::Sort;
use crate::record::{self, Column};

/// One list.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Its path; part of what a cursor is bound to.
    pub(crate) path: &'static str,
    /// Its table in a generation's schema.
    pub(crate) table: &'static str,
    /// The column that every row is told apart by.
    pub(crate) id: &'static str,
    /// What its items show.
    pub(crate) columns: &'static [Column],
    /// What holds for all of its rows.
    pub(crate) always: &'static str,
    /// What holds for those that are not deleted.
    pub(crate) live: &'static str,
    pub(crate) filters: &'static [Filter],
    pub(crate) sorts: &'static [Sort],
    /// Whether its rows carry a company's columns, which may still be on their way.
    pub(crate) fans_out: bool,
}

const fn filter(name: &'static str, column: &'static str, kind: Kind) -> Filter {
    Filter { name, column, also: "", kind }
}

/// A filter that only rows with a prospect pass.
const fn of_prospect(name: &'static str, column: &'static str, kind: Kind) -> Filter {
    Filter { name, column, also: " AND r.prospect_id IS NOT NULL", kind }
}

const fn sort(name: &'static str, column: &'static str, nullable: bool) -> Sort {
    Sort { name, column, nullable }
}

/// `GET /v1/companies`
pub(crate) const COMPANIES: Resource = Resource {
    path: "/v1/companies",
    table: "companies",
    id: "company_id",
    columns: record::COMPANY,
    always: "",
    live: " AND r.deleted_at IS NULL AND r.merged_into IS NULL",
    filters: &[
        filter("company_id", "company_id", Kind::Id),
        filter("domain", "domain", Kind::Domain),
        filter("name", "name_sort", Kind::Name),
        filter("industry", "industry", Kind::Text),
        filter("country", "country", Kind::Country),
        filter("city", "city", Kind::Text),
        filter("state", "state", Kind::Text),
        filter("revenue", "revenue", Kind::Integer),
        filter("revenue_min", "revenue", Kind::Least),
        filter("revenue_max", "revenue", Kind::Most),
        filter("employee_count", "employee_count", Kind::Integer),
        filter("employees_min", "employee_count", Kind::Least),
        filter("employees_max", "employee_count", Kind::Most),
        filter("min_employee_size", "min_employee_size", Kind::Integer),
        filter("max_employee_size", "max_employee_size", Kind::Integer),
        filter("created_after", "created_at", Kind::After),
        filter("updated_after", "updated_at", Kind::After),
    ],
    sorts: &[
        sort("id", "company_id", false),
        sort("name", "name_sort", true),
        sort("domain", "domain", true),
        sort("revenue", "revenue", true),
        sort("employee_count", "employee_count", true),
        sort("created_at", "created_at", false),
        sort("updated_at", "updated_at", false),
    ],
    fans_out: false,
};

/// `GET /v1/prospects`
pub(crate) const PROSPECTS: Resource = Resource {
    path: "/v1/prospects",
    table: "company_prospect",
    id: "row_id",
    columns: record::PROSPECT,
    always: " AND r.prospect_id IS NOT NULL",
    live: " AND r.prospect_deleted_at IS NULL",
    filters: &[
        filter("prospect_id", "row_id", Kind::Id),
        filter("company_id", "company_id", Kind::Id),
        filter("assigned_company_id", "assigned_company_id", Kind::Id),
        filter("name", "prospect_name_sort", Kind::Name),
        filter("email", "email_key", Kind::Email),
        filter("job_title", "job_title", Kind::Text),
        filter("job_title_level", "job_title_level", Kind::JobTitleLevel),
        filter("department", "department", Kind::Text),
        filter("country", "prospect_country", Kind::Country),
        filter("city", "prospect_city", Kind::Text),
        filter("state", "prospect_state", Kind::Text),
        filter("domain", "domain", Kind::Domain),
        filter("company_name", "company_name_sort", Kind::Name),
        filter("industry", "industry", Kind::Text),
        filter("revenue", "revenue", Kind::Integer),
        filter("revenue_min", "revenue", Kind::Least),
        filter("revenue_max", "revenue", Kind::Most),
        filter("employee_count", "employee_count", Kind::Integer),
        filter("employees_min", "employee_count", Kind::Least),
        filter("employees_max", "employee_count", Kind::Most),
        filter("created_after", "created_at", Kind::After),
        filter("updated_after", "prospect_updated_at", Kind::After),
    ],
    sorts: &[
        sort("id", "row_id", false),
        sort("name", "prospect_name_sort", true),
        sort("domain", "domain", true),
        sort("revenue", "revenue", true),
        sort("employee_count", "employee_count", true),
        sort("created_at", "created_at", false),
        // Never null where there is a prospect, which `always` says.
        sort("updated_at", "prospect_updated_at", false),
    ],
    fans_out: true,
};

/// `GET /v1/company-prospects`
pub(crate) const COMPANY_PROSPECTS: Resource = Resource {
    path: "/v1/company-prospects",
    table: "company_prospect",
    id: "row_id",
    columns: record::COMPANY_PROSPECT,
    always: "",
    live: " AND r.prospect_deleted_at IS NULL",
    filters: &[
        filter("company_id", "company_id", Kind::Id),
        of_prospect("prospect_id", "row_id", Kind::Id),
        filter("assigned_company_id", "assigned_company_id", Kind::Id),
        filter("domain", "domain", Kind::Domain),
        filter("company_name", "company_name_sort", Kind::Name),
        filter("industry", "industry", Kind::Text),
        filter("revenue", "revenue", Kind::Integer),
        filter("revenue_min", "revenue", Kind::Least),
        filter("revenue_max", "revenue", Kind::Most),
        filter("employee_count", "employee_count", Kind::Integer),
        filter("employees_min", "employee_count", Kind::Least),
        filter("employees_max", "employee_count", Kind::Most),
        of_prospect("prospect_name", "prospect_name_sort", Kind::Name),
        filter("email", "email_key", Kind::Email),
        filter("job_title", "job_title", Kind::Text),
        filter("job_title_level", "job_title_level", Kind::JobTitleLevel),
        filter("department", "department", Kind::Text),
        filter("prospect_country", "prospect_country", Kind::Country),
        filter("prospect_city", "prospect_city", Kind::Text),
        filter("prospect_state", "prospect_state", Kind::Text),
        filter("created_after", "created_at", Kind::After),
        filter("updated_after", "updated_at", Kind::After),
    ],
    sorts: &[
        sort("id", "row_id", false),
        sort("name", "company_name_sort", true),
        sort("domain", "domain", true),
        sort("revenue", "revenue", true),
        sort("employee_count", "employee_count", true),
        sort("created_at", "created_at", false),
        sort("updated_at", "updated_at", false),
    ],
    fans_out: true,
};
