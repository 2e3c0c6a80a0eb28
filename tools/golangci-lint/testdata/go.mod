module github.com/tokenbroker/tokenbroker

go 1.26.0
