package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// certificates writes ca.pem, app.pem and app.key for the proxy, client.pem and client.key.
func certificates(directory string) error {
	authority := &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	key, err := issue(directory, "ca", authority, nil, nil)
	if err != nil {
		return err
	}
	server := &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	if _, err := issue(directory, "app", server, authority, key); err != nil {
		return err
	}
	id := &url.URL{Scheme: "spiffe", Host: "example.org", Path: "/client"}
	_, err = issue(directory, "client", &x509.Certificate{URIs: []*url.URL{id}}, authority, key)
	return err
}

// issue completes the template, has it signed by the parent, or by itself, and writes both files.
func issue(directory, name string, template, parent *x509.Certificate, by *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = time.Now().Add(24 * time.Hour)
	template.BasicConstraintsValid = true
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	if parent == nil {
		parent, by = template, key
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	for ending, block := range map[string]*pem.Block{
		".pem": {Type: "CERTIFICATE", Bytes: certificate},
		".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		file := filepath.Join(directory, name+ending)
		// The proxy reads them as a user of its own; they are thrown away with the directory.
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o644); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// clientTLS is what a client of the proxy shows and trusts.
func clientTLS(directory string) (*tls.Config, error) {
	authority, err := os.ReadFile(filepath.Join(directory, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	config := &tls.Config{RootCAs: roots}
	certificate := filepath.Join(directory, "client.pem")
	if _, err := os.Stat(certificate); err != nil {
		// Without a certificate, to see that it is refused.
		return config, nil
	}
	pair, err := tls.LoadX509KeyPair(certificate, filepath.Join(directory, "client.key"))
	config.Certificates = []tls.Certificate{pair}
	return config, err
}
