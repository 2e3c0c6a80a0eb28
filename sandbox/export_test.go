package sandbox

// RememberedAccessTokens is how many access tokens an issuer holds, which nothing outside can tell.
func (s *Server) RememberedAccessTokens(issuer string) int {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.access)
}

// RememberedConsents is how many pages, codes, devices and used assertions an issuer holds.
func (s *Server) RememberedConsents(issuer string) (pages, codes, devices, assertions int) {
	i := s.mustIssuer(issuer)
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, used := range i.used {
		assertions += len(used)
	}
	return len(i.requests), len(i.codes), len(i.devices), assertions
}
