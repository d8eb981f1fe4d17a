// Package health tells over HTTP whether a service is ready, on the address that its flags name: Dapr 1.18's own
// health server listens on every address of the machine.
package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/dapr/dapr/pkg/healthz"
)

// Serve answers GET /healthz with 200 while everything is ready, with 503 before, until ctx ends.
func Serve(state healthz.Healthz, address string, port int) func(context.Context) error {
	return func(ctx context.Context) error {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
			if !state.IsReady() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		server := &http.Server{
			Addr: net.JoinHostPort(address, strconv.Itoa(port)), Handler: mux, ReadHeaderTimeout: time.Second,
		}
		stop := context.AfterFunc(ctx, func() { _ = server.Close() })
		defer stop()
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("health: %w", err)
		}
		return nil
	}
}
