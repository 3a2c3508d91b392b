//! How the server is reached: its address, the token, TLS.

use std::sync::Arc;
use std::time::Duration;

use consulrs::client::{ConsulClient, ConsulClientSettingsBuilder};
use ringkit_config::ConsulConfig;
use {http_02 as http, reqwest_011 as reqwest};

use super::BACKEND;
use crate::error::Error;

/// A client for the server that is configured. Nothing is asked of it yet.
pub(super) fn connect(config: &ConsulConfig) -> Result<ConsulClient, Error> {
    let address = match config.host.split_once("://") {
        None if config.tls_enabled => format!("https://{}", config.host),
        None => format!("http://{}", config.host),
        // A token must not go in clear over a connection that was to be encrypted.
        Some(("http", host)) if config.tls_enabled => format!("https://{host}"),
        Some(("http" | "https", _)) => config.host.clone(),
        Some((scheme, _)) => {
            return Err(misconfigured("host", format!("`{scheme}://` is not supported: use host:port")));
        }
    };
    let mut url = reqwest::Url::parse(&address).map_err(|cause| misconfigured("host", cause.to_string()))?;
    let http = http_client(config, &mut url)?;
    let token = token(config)?;
    if let Some(token) = &token
        && http::HeaderValue::from_str(token).is_err()
    {
        return Err(misconfigured("acl_token", "holds bytes that no HTTP header may hold".to_owned()));
    }
    let base = url.as_str().trim_end_matches('/').to_owned();
    let mut settings = ConsulClientSettingsBuilder::default();
    settings.address(base.clone()).ca_certs(Vec::<String>::new()).verify(!config.tls_insecure_skip_verify);
    let mut settings = settings.build().map_err(|cause| misconfigured("host", cause.to_string()))?;
    settings.token = token;
    Ok(ConsulClient { http: rustify::clients::reqwest::Client::new(&base, http), settings })
}

fn token(config: &ConsulConfig) -> Result<Option<String>, Error> {
    if !config.acl_token.is_empty() {
        return Ok(Some(config.acl_token.expose().to_owned()));
    }
    if let Ok(token) = std::env::var("CONSUL_HTTP_TOKEN")
        && !token.is_empty()
    {
        return Ok(Some(token));
    }
    match std::env::var("CONSUL_HTTP_TOKEN_FILE") {
        Ok(file) if !file.is_empty() => {
            let token = std::fs::read_to_string(&file).map_err(|cause| {
                misconfigured("acl_token", format!("CONSUL_HTTP_TOKEN_FILE `{file}`: {cause}"))
            })?;
            Ok(Some(token.trim().to_owned()))
        }
        _ => Ok(None),
    }
}

/// Our own client, with deadlines and rustls. A server name of its own takes the place of the host in `url`.
fn http_client(config: &ConsulConfig, url: &mut reqwest::Url) -> Result<reqwest::Client, Error> {
    let mut builder = reqwest::Client::builder()
        .use_rustls_tls()
        .no_proxy()
        .connect_timeout(config.http_client_timeout.min(Duration::from_secs(5)))
        .tcp_keepalive(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .danger_accept_invalid_certs(config.tls_insecure_skip_verify);
    let read = |key: &'static str, path: &str| {
        std::fs::read(path).map_err(|cause| misconfigured(key, format!("cannot read `{path}`: {cause}")))
    };
    if !config.tls_ca_path.is_empty() {
        let pem = read("tls_ca_path", &config.tls_ca_path)?;
        let certificate = reqwest::Certificate::from_pem(&pem)
            .map_err(|cause| misconfigured("tls_ca_path", cause.to_string()))?;
        builder = builder.tls_built_in_root_certs(false).add_root_certificate(certificate);
    }
    if !config.tls_cert_path.is_empty() {
        let mut pem = read("tls_cert_path", &config.tls_cert_path)?;
        pem.extend(read("tls_key_path", &config.tls_key_path)?);
        let identity = reqwest::Identity::from_pem(&pem)
            .map_err(|cause| misconfigured("tls_cert_path", cause.to_string()))?;
        builder = builder.identity(identity);
    }
    if !config.tls_server_name.is_empty() && url.scheme() == "https" {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if config.tls_server_name.parse::<std::net::IpAddr>().is_ok() && config.tls_server_name != host {
            let reason = "is an address; only a name can differ from `host`".to_owned();
            return Err(misconfigured("tls_server_name", reason));
        }
        builder = builder.dns_resolver(Arc::new(Instead { host }));
        let named = url.set_host(Some(&config.tls_server_name));
        named.map_err(|cause| misconfigured("tls_server_name", cause.to_string()))?;
    }
    builder.build().map_err(|cause| misconfigured("tls_enabled", cause.to_string()))
}

/// Looks up `host`, whatever name is asked for: that of the certificate.
struct Instead {
    host: String,
}

impl reqwest::dns::Resolve for Instead {
    fn resolve(&self, _name: hyper_014::client::connect::dns::Name) -> reqwest::dns::Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            // The port comes from the URL.
            let addrs = tokio::net::lookup_host((host.as_str(), 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(addrs.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

fn misconfigured(key: &'static str, reason: String) -> Error {
    Error::Misconfigured { backend: BACKEND, key, reason }
}
