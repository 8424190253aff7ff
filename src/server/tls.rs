//! The server's certificate: checked before it is used, exchanged when its files change, and never exchanged for a broken one. When it
//! ends is counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::files::Changes;
use super::listener::Tls;
use super::metrics::Metrics;

/// Reads certificate chain and key. Fails if either cannot be read or they do not belong together.
pub fn load(certificate: &Path, key: &Path, metrics: &Metrics) -> anyhow::Result<Tls> {
    let (config, end) = config(certificate, key)?;
    metrics.certificate_end.set(end);
    Ok(Arc::new(ArcSwap::from_pointee(config)))
}

/// When the first certificate of a chain ends, in seconds since 1970; 0 if none can be read.
fn end(chain: &[CertificateDer]) -> i64 {
    let ends = chain.iter().filter_map(|certificate| {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(parsed.validity().not_after.timestamp())
    });
    ends.min().unwrap_or_default()
}

/// The settings of a listener, and when the certificate ends.
fn config(certificate: &Path, key: &Path) -> anyhow::Result<(ServerConfig, i64)> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("the certificate {} cannot be read", certificate.display()))?;
    anyhow::ensure!(
        !chain.is_empty(),
        "the certificate {} holds no PEM certificate",
        certificate.display()
    );
    let private = PrivateKeyDer::from_pem_file(key).with_context(|| format!("the key {} cannot be read", key.display()))?;
    let end = end(&chain);
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .with_context(|| format!("{} and {} cannot be used together", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, end))
}

/// Follows the files, for ever. New connections get the new certificate, open ones keep theirs.
pub async fn follow(tls: Tls, certificate: PathBuf, key: PathBuf, period: Duration, metrics: Arc<Metrics>) {
    let mut changes = Changes::below(&[certificate.clone(), key.clone()], period);
    let read = || std::fs::read(&certificate).ok().zip(std::fs::read(&key).ok());
    let mut last = read();
    loop {
        changes.next().await;
        let now = read();
        if now == last {
            continue;
        }
        last = now;
        match config(&certificate, &key) {
            Ok((config, end)) => {
                metrics.certificate_end.set(end);
                tls.store(Arc::new(config));
                tracing::info!(certificate = %certificate.display(), "the certificate was exchanged");
            }
            Err(error) => tracing::error!("the new certificate is not used, the old one goes on: {error:#}"),
        }
    }
}
