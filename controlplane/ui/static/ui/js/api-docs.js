// Draws the API's contract with Swagger UI. Requests that are tried here go out with the reader's session.

const place = document.querySelector("#api-docs");

// Swagger UI has its own dark theme and its own name for it.
const follow = () => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.classList.toggle("dark-mode", (root.dataset.theme ?? system) === "dark");
};
follow();
document.addEventListener("slipway:theme", follow);

window.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.contract,
  presets: [window.SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  docExpansion: "list",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor(request) {
    if (request.method && request.method !== "GET") {
      request.headers["X-CSRFToken"] = place.dataset.csrf;
    }
    return request;
  },
});
