//! Chat rooms that are written to by a webhook: Slack, Discord, Teams, Mattermost.
//!
//! In: alerts. Out: the JSON each of them takes. Where the format has plain text, plain text
//! is used (Slack's `plain_text` blocks); elsewhere every character that the room's Markdown
//! gives a meaning to is escaped, and nobody is called by name (`allowed_mentions` of Discord;
//! `@` followed by a zero-width joiner in Mattermost and Teams).

use serde_json::{Value, json};
use ureq::http::Method;

use super::super::Outcome;
use super::super::config::Kind;
use super::super::notice::{Notice, cut, defang, text_of, title_of};
use super::To;

/// Slack: 150 characters in a header block, 3000 in a section.
const SLACK_TEXT: usize = 2_900;
/// Discord: 256 characters in a title, 4096 in a description.
const DISCORD_TEXT: usize = 3_900;
/// Teams: 28 KB in all. Mattermost: 16383 characters.
const OTHER_TEXT: usize = 12_000;

pub(super) fn send(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Outcome> {
    let title = defang(&title_of(notices));
    let text = |max| defang(&text_of(notices, max));
    let body = match to.target.kind {
        Kind::Slack => slack(&title, &cut(text(SLACK_TEXT), SLACK_TEXT)),
        Kind::Discord => discord(&title, &text(DISCORD_TEXT / 2)),
        Kind::Teams => teams(&title, &text(OTHER_TEXT)),
        _ => {
            json!({"text": format!("**{}**\n{}", markdown(&title), markdown(&text(OTHER_TEXT / 2)))})
        }
    };
    to.http(Method::POST, &to.url(true)?, Vec::new(), body.to_string())
}

fn slack(title: &str, text: &str) -> Value {
    // `text` is what notifications show; it is read as mrkdwn.
    let entities = title.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    json!({
        "text": entities,
        "blocks": [
            {"type": "header",
             "text": {"type": "plain_text", "emoji": false, "text": cut(title.to_owned(), 150)}},
            {"type": "section",
             "text": {"type": "plain_text", "emoji": false, "text": text}},
        ],
    })
}

fn discord(title: &str, text: &str) -> Value {
    json!({
        "allowed_mentions": {"parse": []},
        "embeds": [{
            "title": cut(markdown(title), 256),
            "description": cut(markdown(text), DISCORD_TEXT),
        }],
    })
}

fn teams(title: &str, text: &str) -> Value {
    let block = |text: &str, more: Value| {
        let mut block = json!({"type": "TextBlock", "wrap": true, "text": markdown(text)});
        if let (Some(block), Some(more)) = (block.as_object_mut(), more.as_object()) {
            block.extend(more.clone());
        }
        block
    };
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [
                    block(title, json!({"weight": "Bolder"})),
                    block(text, json!({})),
                ],
            },
        }],
    })
}

/// Nothing of it means anything: a backslash before every mark, a joiner after `@`.
fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '<' | '>' | '#' | '+'
            | '-' | '!' | '|' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '@' => out.push_str("@\u{2060}"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_marked_up() {
        assert_eq!(markdown("*a* [b](c) @here"), "\\*a\\* \\[b\\]\\(c\\) @\u{2060}here");
        assert_eq!(markdown("plain, words. 1:2"), "plain, words. 1:2");
    }

    #[test]
    fn slack_entities() {
        let body = slack("<!channel> & co", "x");
        assert_eq!(body["text"], "&lt;!channel&gt; &amp; co");
        assert_eq!(body["blocks"][0]["text"]["type"], "plain_text");
    }

    #[test]
    fn discord_calls_nobody() {
        let body = discord("a", "@everyone");
        assert_eq!(body["allowed_mentions"]["parse"], json!([]));
        let text = body["embeds"][0]["description"].as_str().unwrap_or_default().to_owned();
        assert!(!text.contains("@everyone"), "{text}");
        let long = discord("a", &"-".repeat(10_000));
        assert!(long["embeds"][0]["description"].as_str().unwrap_or_default().len() <= 4_096);
    }
}
