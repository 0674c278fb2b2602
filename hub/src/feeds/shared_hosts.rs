//! Platforms on which strangers share one name: a bad page there says nothing of the rest.
//!
//! In: a page's address. Out: whether its host is such a platform. Neither DNS nor a TLS
//! connection shows the path, so a page of `raw.githubusercontent.com` on a feed would
//! accuse everybody who ever fetched a file there. Own table, from the hosts that feeds of
//! bad pages name most; names below them (`someone.blogspot.com`) belong to one owner and
//! are taken.

/// Lower case, in order.
const SHARED: &[&str] = &[
    "1drv.ms",
    "anonfiles.com",
    "archive.org",
    "attachments.office.net",
    "bit.ly",
    "bitbucket.org",
    "cdn.discordapp.com",
    "codeberg.org",
    "discord.com",
    "discord.gg",
    "docs.google.com",
    "drive.google.com",
    "drive.usercontent.google.com",
    "dropbox.com",
    "facebook.com",
    "filebin.net",
    "firebasestorage.googleapis.com",
    "forms.gle",
    "forms.office.com",
    "github.com",
    "gist.github.com",
    "gist.githubusercontent.com",
    "gitlab.com",
    "goo.gl",
    "huggingface.co",
    "instagram.com",
    "ipfs.io",
    "linkedin.com",
    "lnkd.in",
    "media.discordapp.net",
    "mediafire.com",
    "mega.nz",
    "notion.so",
    "npmjs.com",
    "objects.githubusercontent.com",
    "onedrive.live.com",
    "paste.ee",
    "pastebin.com",
    "pypi.org",
    "raw.githubusercontent.com",
    "release-assets.githubusercontent.com",
    "rentry.co",
    "s3.amazonaws.com",
    "sites.google.com",
    "sourceforge.net",
    "storage.googleapis.com",
    "t.co",
    "t.me",
    "telegra.ph",
    "tinyurl.com",
    "transfer.sh",
    "twitter.com",
    "web.archive.org",
    "wetransfer.com",
    "www.dropbox.com",
    "www.google.com",
    "www.mediafire.com",
    "x.com",
    "youtube.com",
];

/// Whether a page's host is shared by strangers. `page` is `scheme://host[:port]/path` or
/// `host/path`.
pub(super) fn is_shared(page: &str) -> bool {
    let rest = page.split_once("://").map_or(page, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default().trim_end_matches('.');
    let host = host.to_ascii_lowercase();
    let bare = host.strip_prefix("www.").unwrap_or(&host);
    SHARED.contains(&host.as_str()) || SHARED.contains(&bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_many_and_hosts_of_one() {
        for page in [
            "https://raw.githubusercontent.com/a/b/x.exe",
            "http://user@WWW.Dropbox.com:443/s/x",
            "github.com/a/b",
            "https://www.github.com./a",
        ] {
            assert!(is_shared(page), "{page}");
        }
        for page in [
            "http://203.0.113.9:8080/bin.sh",
            "https://evil.blogspot.com/x",
            "https://github.com.evil.example/x",
            "https://evil.example/github.com",
            "",
        ] {
            assert!(!is_shared(page), "{page}");
        }
    }
}
