// Shows the time of each event that the server sends, and how long it was on its way.
"use strict";

const clock = document.getElementById("clock");
const events = new EventSource(clock.dataset.events);
events.onmessage = (event) => {
  const made = Number(event.data) * 1000;
  clock.textContent = `${new Date(made).toLocaleTimeString()}, ${Math.max(0, Date.now() - made).toFixed(0)} ms ago`;
};
