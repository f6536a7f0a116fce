//! The sample that `local-stack up` loads into an empty log: invented companies and people, sent as a client would send them.

use serde_json::{Value, json};

use crate::error::StackError;
use crate::http;
use crate::part::Part;
use crate::stack::Stack;

/// Companies with their prospects.
const SAMPLE: &str = include_str!("../sample.json");

/// Loads the sample if the log is empty; gives how many companies and prospects were registered.
///
/// # Errors
/// If the command service does not take it.
pub async fn load_sample(stack: &Stack) -> Result<(usize, usize), StackError> {
    let (client, connection) = tokio_postgres::connect(&stack.superuser_url(Part::Primary), tokio_postgres::NoTls)
        .await
        .map_err(StackError::database("connecting"))?;
    let driver = tokio::spawn(connection);
    let row = client
        .query_one("SELECT position FROM log.head", &[])
        .await
        .map_err(StackError::database("reading the head"))?;
    drop(client);
    driver.abort();
    if row.get::<_, i64>(0) > 0 {
        return Ok((0, 0));
    }
    let sample: Vec<Value> =
        serde_json::from_str(SAMPLE).map_err(|error| StackError::Order(format!("the sample is not JSON: {error}")))?;
    let mut companies = Vec::new();
    let mut prospects = Vec::new();
    for mut company in sample {
        prospects.push(company.as_object_mut().and_then(|company| company.remove("prospects")).unwrap_or_default());
        companies.push(line("/v1/companies", &company));
    }
    let answers = batch(stack, &companies).await?;
    let mut lines = Vec::new();
    for (answer, prospects) in answers.iter().zip(prospects) {
        for mut prospect in prospects.as_array().cloned().unwrap_or_default() {
            prospect["company_id"] = answer["body"]["id"].clone();
            lines.push(line("/v1/prospects", &prospect));
        }
    }
    batch(stack, &lines).await?;
    Ok((companies.len(), lines.len()))
}

fn line(path: &str, body: &Value) -> String {
    json!({"method": "POST", "path": path, "body": body}).to_string()
}

async fn batch(stack: &Stack, lines: &[String]) -> Result<Vec<Value>, StackError> {
    let refused = |what: String| StackError::Order(format!("the sample was not taken: {what}"));
    let body = lines.join("\n");
    let url = stack.url(Part::CommandService(1));
    let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let media = Some(("application/x-ndjson", body.as_bytes()));
    let (status, text) = http::call(port, "POST", "/v1/batch", Some(stack.api_key()), media)
        .await
        .map_err(StackError::io("sending the sample"))?;
    if status != 200 {
        return Err(refused(text));
    }
    let answers: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    match answers.iter().find(|answer| answer["status"] != 201) {
        Some(answer) => Err(refused(answer.to_string())),
        None if answers.len() == lines.len() => Ok(answers),
        None => Err(refused(format!("{} answers to {} lines", answers.len(), lines.len()))),
    }
}
