package grant

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"syscall"
)

const (
	metadataAddr = "169.254.169.254"
	adcFile      = "application_default_credentials.json"
)

// Ambient says where the machine's own Google credentials are (AIP-4110). The zero value: it has none.
type Ambient struct {
	Files        []string // the first that exists is used
	Named        bool     // somebody named Files[0]: it must exist, and nothing else is looked for
	MetadataAddr string   // of the metadata server: an address, with a port if that is not 80; loopback or link-local. "" = none
}

// AmbientFrom looks where Google's own libraries do. get reads an environment variable; system is a GOOS. A GCE_METADATA_HOST that is no
// loopback or link-local address is passed over: the environment must not say which host gets to answer.
func AmbientFrom(get func(string) string, system string) Ambient {
	if file := get("GOOGLE_APPLICATION_CREDENTIALS"); file != "" {
		return Ambient{Files: []string{file}, Named: true}
	}
	a := Ambient{MetadataAddr: metadataAddr}
	if host := get("GCE_METADATA_HOST"); host != "" {
		if _, err := metadataAt(host); err == nil {
			a.MetadataAddr = host
		}
	}
	switch dir, home := get("CLOUDSDK_CONFIG"), get("HOME"); {
	case dir != "":
		a.Files = []string{filepath.Join(dir, adcFile)}
	case system == "windows" && get("APPDATA") != "":
		a.Files = []string{filepath.Join(get("APPDATA"), "gcloud", adcFile)}
	case system != "windows" && home != "":
		a.Files = []string{filepath.Join(home, ".config", "gcloud", adcFile)}
	}
	return a
}

// metadataAt reads the address of a metadata server.
func metadataAt(text string) (netip.AddrPort, error) {
	to, err := netip.ParseAddrPort(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return to, errors.New("ambient: the metadata server must be given by its address, e.g. 169.254.169.254")
		}
		to = netip.AddrPortFrom(addr, 80)
	}
	if ip := to.Addr().Unmap(); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
		return to, fmt.Errorf("ambient: %s is neither a link-local nor a loopback address, where metadata servers are", ip)
	}
	return to, nil
}

// newMetadata returns a connection to the metadata server and to nothing else: it alone may be link-local. nil = there is none.
func (a Ambient) newMetadata() (*metadata, error) {
	if a.MetadataAddr == "" {
		return nil, nil
	}
	to, err := metadataAt(a.MetadataAddr)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: connectTimeout, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
		if got, err := netip.ParseAddrPort(address); err != nil || got != to {
			return fmt.Errorf("%w: %q is not the metadata server", errAddress, address)
		}
		return nil
	}}
	t := &http.Transport{DialContext: dialer.DialContext, DisableCompression: true, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHeader}
	return &metadata{to: to.String(), transport: t}, nil
}

// metadata is the metadata server of a Google machine.
type metadata struct {
	to        string // address and port
	transport *http.Transport
}
