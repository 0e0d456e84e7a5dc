// Posts files with net/http: go run post.go MODE URL FILE...
// Prints a line a file, in their order: the status, a tab, the body.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
)

func post(client *http.Client, url string, file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	response, err := client.Post(url, "application/dicom", bytes.NewReader(data))
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d\t%s", response.StatusCode, body)
}

func main() {
	mode, url, files := os.Args[1], os.Args[2], os.Args[3:]
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: mode == "alone"}}
	lines := make([]string, len(files))
	var all sync.WaitGroup
	for at, file := range files {
		if mode != "parallel" {
			lines[at] = post(client, url, file)
			continue
		}
		all.Add(1)
		go func(at int, file string) {
			defer all.Done()
			lines[at] = post(client, url, file)
		}(at, file)
	}
	all.Wait()
	for _, line := range lines {
		fmt.Println(line)
	}
}
