//! Answers of another type than the request's path asks for, as RITA sees them.
//!
//! In: a record of HTTP. Out: yes or no. Pure. Only registered types of text are looked at
//! (IANA, "Media Types", tree `text`); a type with several extensions is known by its first.

use super::read::Record;

/// Types that have an extension, and the first of them.
const EXTENSIONS: [(&str, &str); 12] = [
    ("calendar", "ics"),
    ("css", "css"),
    ("csv", "csv"),
    ("dns", "soa"),
    ("html", "html"),
    ("javascript", "js"),
    ("markdown", "md"),
    ("plain", "txt"),
    ("uri-list", "uris"),
    // RFC 6350 has vcf; RITA's table begins otherwise.
    ("vcard", "ifb"),
    ("xml", "xml"),
    ("xml-external-parsed-entity", "xml"),
];
/// Registered types without one.
const PLAIN: &str = "1d-interleaved-parityfec cache-manifest cql cql-expression cql-identifier \
    csv-schema directory ecmascript encaprtp enriched example fhirpath flexfec fwdred gff3 \
    grammar-ref-list hl7v2 jcr-cnd mizar n3 parameters parityfec provenance-notation \
    prs.fallenstein.rst prs.lines.tag prs.prop.logic prs.texi raptorfec RED rfc822-headers rtf \
    rtp-enc-aescm128 rtploopback rtx SGML shaclc shex spdx strings t140 tab-separated-values troff \
    turtle ulpfec vnd.a vnd.abc vnd.ascii-art vnd.curl vnd.debian.copyright vnd.DMClientScript \
    vnd.dvb.subtitle vnd.esmertec.theme-descriptor vnd.exchangeable vnd.familysearch.gedcom \
    vnd.ficlab.flt vnd.fly vnd.fmi.flexstor vnd.gml vnd.graphviz vnd.hans vnd.hgl vnd.in3d.3dml \
    vnd.in3d.spot vnd.IPTC.NewsML vnd.IPTC.NITF vnd.latex-z vnd.motorola.reflex \
    vnd.ms-mediapackage vnd.net2phone.commcenter.command vnd.radisys.msml-basic-layout \
    vnd.senx.warpscript vnd.si.uricatalogue vnd.sun.j2me.app-descriptor vnd.sosi \
    vnd.trolltech.linguist vnd.wap.si vnd.wap.sl vnd.wap.wml vnd.wap.wmlscript vtt wgsl";

/// Was something of another type answered than was asked for? The root asks for nothing.
pub(super) fn is_other(record: &Record<'_>) -> bool {
    let uri = record.text("uri").unwrap_or_default();
    let types = record.list("resp_mime_types");
    uri != "/" && types.iter().any(|mime| expected(mime).is_some_and(|e| e != extension(&uri)))
}

/// The extension of a type that is known.
fn expected(mime: &str) -> Option<&'static str> {
    let text = mime.strip_prefix("text/")?;
    let known = EXTENSIONS.iter().find(|(name, _)| *name == text).map(|(_, e)| *e);
    known.or_else(|| PLAIN.split(' ').any(|name| name == text).then_some(""))
}

/// Of the last part of the path: what is behind its last point.
fn extension(uri: &str) -> &str {
    let last = path(uri).rsplit('/').next().unwrap_or_default();
    last.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Without a host before it, and without the query; empty where there is none.
fn path(uri: &str) -> &str {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    match uri.split_once("//") {
        Some((before, rest)) if before.is_empty() || before.ends_with(':') => {
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default()
        }
        _ if uri.starts_with('/') => uri,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_of_paths() {
        for (uri, expected) in [
            ("/a/b.js?x=1.html", "js"),
            ("http://h.example/a/b.JS#f", "JS"),
            ("http://h.example", ""),
            ("//h.example/a.css", "css"),
            ("/a//b/c.txt", "txt"),
            ("/a.b/c", ""),
            ("/a.b/c.", ""),
            ("h.example:443", ""),
            ("*", ""),
            ("", ""),
        ] {
            assert_eq!(extension(uri), expected, "{uri}");
        }
    }

    #[test]
    fn types_and_paths_that_go_together() {
        let check = |uri: &str, mime: &str, other: bool| {
            let mut map = serde_json::Map::new();
            map.insert("uri".into(), uri.into());
            map.insert("resp_mime_types".into(), serde_json::json!([mime]));
            assert_eq!(is_other(&Record::Json(map)), other, "{uri} {mime}");
        };
        check("/a.html", "text/html", false);
        check("/a.htm", "text/html", true);
        check("/a", "text/html", true);
        check("/", "text/html", false);
        check("/a.gif", "image/gif", false);
        check("/a.gif", "text/plain", true);
        check("/a.gif", "text/unheard-of", false);
        check("/a.rtf", "text/rtf", true);
        check("/a", "text/rtf", false);
        check("/a.gif", "text/vnd.IPTC.NITF", true);
    }
}
