//! What endpoints are sent and what they send: two shapes, read leniently.
//!
//! In: a question; bytes. Out: a JSON body; the answer's text with what it cost. Pure.
//! Shapes: OpenAI's chat completions as llama.cpp, vLLM, SGLang, Ollama and LM Studio take
//! them (`response_format` of type `json_schema`), and Anthropic's messages
//! (`output_config.format`). Unknown fields are passed over; usage may be absent.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Bad;
use super::config::{Api, Tier};
use super::prompt::Question;

/// Anthropic's `anthropic-version`.
pub(super) const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Tokens of an exchange. `read` includes `cached`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Read by the model.
    pub read: u64,
    /// Of them, from the endpoint's cache.
    pub cached: u64,
    /// Written by the model.
    pub written: u64,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) text: String,
    /// The model that answered, as it calls itself.
    pub(super) model: String,
    pub(super) usage: Option<Usage>,
}

/// The path of the interface.
pub(super) const fn path(api: Api) -> &'static str {
    match api {
        Api::Chat => "/v1/chat/completions",
        Api::Messages => "/v1/messages",
    }
}

/// The body of a request.
pub(super) fn body(tier: &Tier, question: &Question) -> Value {
    let most = if tier.max_tokens > 0 { tier.max_tokens } else { question.answer_tokens() };
    let mut body = match tier.api {
        Api::Chat => json!({
            "model": tier.model,
            "max_tokens": most,
            "messages": [
                {"role": "system", "content": question.system},
                {"role": "user", "content": question.user},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdicts", "strict": true, "schema": question.schema},
            },
        }),
        Api::Messages => json!({
            "model": tier.model,
            "max_tokens": most,
            // The fixed words are kept by the endpoint.
            "system": [{"type": "text", "text": question.system,
                        "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": question.user}],
            "output_config": {"format": {"type": "json_schema", "schema": question.schema}},
        }),
    };
    if tier.temperature >= 0.0 {
        // Not part of Anthropic's newer interface at all.
        if let (Api::Chat, Some(fields)) = (tier.api, body.as_object_mut()) {
            fields.insert("temperature".into(), tier.temperature.into());
        }
    }
    body
}

/// Reads an answer.
///
/// # Errors
/// [`Bad`].
pub(super) fn read(api: Api, bytes: &[u8]) -> Result<Answer, Bad> {
    match api {
        Api::Chat => chat(bytes),
        Api::Messages => messages(bytes),
    }
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Bad> {
    serde_json::from_slice(bytes)
        .map_err(|e| Bad::Schema(format!("envelope, line {}, column {}", e.line(), e.column())))
}

#[derive(Deserialize)]
struct Chat {
    #[serde(default)]
    model: Option<String>,
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<ChatUsage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct ChatUsage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
    #[serde(default)]
    prompt_tokens_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    cached_tokens: Option<u64>,
}

fn chat(bytes: &[u8]) -> Result<Answer, Bad> {
    let chat: Chat = parse(bytes)?;
    let choice = chat.choices.into_iter().next();
    let choice = choice.ok_or_else(|| Bad::Schema("no choice".into()))?;
    if choice.message.refusal.is_some_and(|r| !r.is_empty()) {
        return Err(Bad::Refusal);
    }
    match choice.finish_reason.as_deref() {
        Some("length") => return Err(Bad::Truncated),
        Some("content_filter") => return Err(Bad::Refusal),
        _ => {}
    }
    let usage = chat.usage.map(|u| Usage {
        read: u.prompt_tokens,
        cached: u.prompt_tokens_details.and_then(|d| d.cached_tokens).unwrap_or(0),
        written: u.completion_tokens,
    });
    let text = choice.message.content.unwrap_or_default();
    Ok(Answer { text, model: chat.model.unwrap_or_default(), usage })
}

#[derive(Deserialize)]
struct Messages {
    #[serde(default)]
    model: Option<String>,
    content: Vec<Block>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    usage: Option<MessagesUsage>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

/// `input_tokens` does not include what came from or went into the cache.
#[derive(Deserialize)]
struct MessagesUsage {
    #[serde(default)]
    input_tokens: u64,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: u64,
}

fn messages(bytes: &[u8]) -> Result<Answer, Bad> {
    let messages: Messages = parse(bytes)?;
    match messages.stop_reason.as_deref() {
        Some("max_tokens" | "model_context_window_exceeded") => return Err(Bad::Truncated),
        Some("refusal") => return Err(Bad::Refusal),
        _ => {}
    }
    let usage = messages.usage.map(|u| {
        let cached = u.cache_read_input_tokens.unwrap_or(0);
        let created = u.cache_creation_input_tokens.unwrap_or(0);
        Usage {
            read: u.input_tokens.saturating_add(cached).saturating_add(created),
            cached,
            written: u.output_tokens,
        }
    });
    let texts = messages.content.into_iter().filter(|b| b.kind == "text").filter_map(|b| b.text);
    Ok(Answer { text: texts.collect(), model: messages.model.unwrap_or_default(), usage })
}

/// What an error's body says, in any of the shapes endpoints use: for people, and whether
/// the question was too long, or the money is spent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) text: String,
    pub(super) too_long: bool,
    pub(super) spent: bool,
}

pub(super) fn complaint(bytes: &[u8]) -> Complaint {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let error = &body["error"];
    let kind = error["type"].as_str().unwrap_or_default();
    let text = error.as_str().or_else(|| error["message"].as_str()).unwrap_or_default();
    let code = error["details"]["error_code"].as_str().or_else(|| error["code"].as_str());
    Complaint {
        text: agentmon_core::name::printable(text.as_bytes(), 160),
        too_long: matches!(kind, "exceed_context_size_error")
            || code == Some("context_length_exceeded"),
        spent: code == Some("enforced_spend_limit_reached") || code == Some("insufficient_quota"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::tests::sample;
    use super::super::prompt;
    use super::*;

    #[track_caller]
    fn check(api: Api, body: &str, want: Result<(&str, Option<Usage>), Bad>) {
        let got = read(api, body.as_bytes()).map(|a| (a.text, a.usage));
        assert_eq!(got, want.map(|(text, usage)| (text.to_owned(), usage)), "{body}");
    }

    #[test]
    fn chat_answers() {
        let usage = Some(Usage { read: 827, cached: 826, written: 40 });
        check(
            Api::Chat,
            r#"{"choices":[{"message":{"content":"{}","reasoning_content":"hm"},"finish_reason":"stop"}],
               "usage":{"prompt_tokens":827,"completion_tokens":40,"prompt_tokens_details":{"cached_tokens":826}}}"#,
            Ok(("{}", usage)),
        );
        check(Api::Chat, r#"{"choices":[{"message":{"content":"{}"}}]}"#, Ok(("{}", None)));
        check(
            Api::Chat,
            r#"{"choices":[{"message":{"content":"{"},"finish_reason":"length"}]}"#,
            Err(Bad::Truncated),
        );
        check(
            Api::Chat,
            r#"{"choices":[{"message":{"content":null,"refusal":"no"}}]}"#,
            Err(Bad::Refusal),
        );
        check(Api::Chat, r#"{"choices":[]}"#, Err(Bad::Schema("no choice".into())));
        assert!(read(Api::Chat, b"<html>").is_err());
    }

    #[test]
    fn messages_answers() {
        let usage = Some(Usage { read: 827, cached: 826, written: 40 });
        check(
            Api::Messages,
            r#"{"content":[{"type":"thinking"},{"type":"text","text":"{}"}],"stop_reason":"end_turn",
               "usage":{"input_tokens":1,"cache_read_input_tokens":826,"output_tokens":40}}"#,
            Ok(("{}", usage)),
        );
        check(Api::Messages, r#"{"content":[],"stop_reason":"refusal"}"#, Err(Bad::Refusal));
        check(Api::Messages, r#"{"content":[],"stop_reason":"max_tokens"}"#, Err(Bad::Truncated));
    }

    #[test]
    fn complaints() {
        let of = |text: &str| complaint(text.as_bytes());
        assert_eq!(of(r#"{"error":"model not found"}"#).text, "model not found");
        let long = of(
            r#"{"error":{"code":400,"message":"m","type":"exceed_context_size_error","n_ctx":4096}}"#,
        );
        assert!(long.too_long && !long.spent);
        let spent = r#"{"type":"error","error":{"type":"rate_limit_error","message":"m",
            "details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        assert!(of(spent).spent);
        assert_eq!(of("<html>"), Complaint::default());
    }

    #[test]
    fn what_is_sent() {
        let question = prompt::ask(&[sample(1, "a.example")]);
        let tier = Tier { model: "m".into(), ..Tier::default() };
        let chat = body(&tier, &question);
        assert_eq!(chat["response_format"]["json_schema"]["schema"], question.schema);
        assert_eq!(chat["temperature"], 0.0);
        assert_eq!(chat["max_tokens"], 500);
        let bare = body(&Tier { temperature: -1.0, ..tier.clone() }, &question);
        assert!(bare.get("temperature").is_none());
        let messages = body(&Tier { api: Api::Messages, ..tier }, &question);
        assert_eq!(messages["output_config"]["format"]["schema"], question.schema);
        assert!(messages.get("temperature").is_none());
    }
}
