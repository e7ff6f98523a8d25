// Has an endpoint dial with the header `Authorization`, which holds a token out of the configuration.
package main

import (
	"errors"

	"tidemill.dev/plugin/connector"
)

// token is what stands in `config` of `before_connect`.
type token struct {
	Token string `json:"token"`
}

func init() {
	connector.Export(func(setup *connector.Setup) (connector.Connector, error) {
		var token token
		if err := setup.DecodeConfig(&token); err != nil {
			return nil, err
		}
		if token.Token == "" {
			return nil, errors.New("token is missing, which is a text")
		}
		return token, nil
	})
}

// BeforeConnect changes what is about to be dialled.
func (token token) BeforeConnect(dial *connector.Dial, _ connector.Attempt) error {
	dial.SetHeader("Authorization", "Bearer "+token.Token)
	return nil
}

func main() {}
